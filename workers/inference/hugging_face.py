"""Models of the Hugging Face hub, or of a folder like one there, by the `transformers` library.

Each generation computes by itself: several at a time share the machine and gain nothing by it, which is what a server
with batching is for. A conversation goes through the tokenizer's chat template; without one it becomes a transcript.
Weights are read from safetensors alone, and code that comes with a model is never run.
"""

from __future__ import annotations

from workers.inference.engine_options import usable_cores
from workers.inference.port import BackendUnavailable, Progress
from workers.inference.threaded import TextModel, ThreadedBackend


class TransformersBackend(ThreadedBackend):
    """``model`` is a folder, or a repository of the hub, which is downloaded.

    ``context_window`` None is the smaller of 4096 and what the model has. ``threads`` None is one a core that this
    process may use, less one. ``gpus`` chooses nothing here: the process was started with `gpus.visible`. With a GPU
    the model is there, else on the CPU; where one is asked for, there has to be one.
    """

    def __init__(
        self,
        model: str,
        *,
        slots: int,
        context_window: int | None = None,
        threads: int | None = None,
        gpus: tuple[int, ...] | None = None,
        pool: str = "local",
    ) -> None:
        super().__init__(slots)
        self._name = model
        self._wanted_window = context_window
        self._threads = threads or max(1, usable_cores() - 1)
        self._gpus = gpus
        self._pool = pool

    def load(self, progress: Progress) -> TextModel:
        try:
            from workers.inference.transformers_model import TransformersModel, gpu_refusal
        except ImportError as error:
            raise BackendUnavailable(
                "engine_missing",
                f"Transformers can't be imported ({error}); install it with `make install-transformers` or `pip "
                "install 'parley[transformers]'`",
            ) from error
        if self._gpus and (wrong := gpu_refusal(self._pool, self._gpus)):
            raise BackendUnavailable("gpu_missing", wrong)
        progress(f"loading {self._name}", 0.0)
        return TransformersModel.load(self._name, wanted_window=self._wanted_window, threads=self._threads)
