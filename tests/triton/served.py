"""A Triton backend that brings its own server, so that it starts and ends on the loop that it is used on."""

from __future__ import annotations

from tests.triton.models import TENSORRT_LLM, VLLM
from tests.triton.server import TritonServer
from workers.inference.port import Progress
from workers.inference.triton import TritonBackend
from workers.inference.triton_tensors import Style, Tensors


class ServedTriton(TritonBackend):
    """Its server has one model, by the name of ``model``."""

    def __init__(
        self, *, slots: int, window: int, style: Style = "vllm", token_s: float = 0.012, model: str = "any"
    ) -> None:
        super().__init__("not started", tensors=Tensors(style), slots=slots)
        served = VLLM if style == "vllm" else TENSORRT_LLM
        self._server_of_its_own = TritonServer({model: served}, window=window, token_s=token_s)

    async def start(self, progress: Progress) -> None:
        self._url = await self._server_of_its_own.start()
        await super().start(progress)

    async def close(self) -> None:
        await super().close()
        await self._server_of_its_own.stop()
