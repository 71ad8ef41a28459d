"""A Triton server without an engine: its gRPC protocol, its strictness, and faults on demand.

A word is a token. What it answers is decided by the seed alone, and comes at a steady pace.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.triton.models import Refused, ServedModel, Value, packed

_WORDS = (" the", " rain", " falls", " on", " a", " quiet", " town", " and", " then", " light", " comes", " back")


@dataclass(frozen=True)
class Script:
    """What the server does with the next requests. Nothing given: it answers.

    ``text_of_error`` comes within the stream after ``fail_after`` tokens, ``status`` closes the stream there.
    """

    words: tuple[str, ...] | None = None
    fail_after: int | None = None
    text_of_error: str | None = None
    status: tuple[grpc.StatusCode, str] | None = None
    hang_after: int | None = None
    end_after: int | None = None
    finish_reason: str | None = None


@dataclass
class Seen:
    """What became of one request."""

    id: str
    inputs: dict[str, list[Value]] = field(default_factory=dict)
    tokens: int = 0
    cancelled_at: float | None = None
    """The loop's time at which the server noticed."""


class _Status(Exception):
    """Closes the stream."""


class TritonServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # made by protoc, without types
    """``window`` is in tokens; ``token_s`` is how long one takes."""

    def __init__(self, models: Mapping[str, ServedModel], *, window: int = 2048, token_s: float = 0.002) -> None:
        self.models = dict(models)
        self.url = ""
        self.live = self.ready = True
        self.holds_metadata = False
        self.script = Script()
        self.seen: list[Seen] = []
        self.running = 0
        self.metadata_asked = 0
        self._window = window
        self._token_s = token_s
        self._changed = asyncio.Event()
        self._server: Any = None

    async def start(self) -> str:
        """Where it listens, as host:port; also in ``url``."""
        self._server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.url = f"127.0.0.1:{port}"
        return self.url

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    @property
    def cancelled(self) -> list[Seen]:
        return [one for one in self.seen if one.cancelled_at is not None]

    @property
    def repeated_ids(self) -> list[str]:
        return [one for one, times in Counter(seen.id for seen in self.seen).items() if times > 1 or not one]

    async def ServerLive(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=self.live)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=self.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=request.name in self.models)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        self.metadata_asked += 1
        self._tell()
        if self.holds_metadata:
            await asyncio.Event().wait()
        return (await self._find(request.name, context)).metadata(request.name)

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        return (await self._find(request.name, context)).config(request.name)

    async def ModelStreamInfer(self, request_iterator: Any, context: Any) -> None:
        one_at_a_time = asyncio.Lock()

        async def send(response: Any) -> None:
            async with one_at_a_time:
                try:
                    await context.write(response)
                except grpc.aio.InternalError:
                    # The client has gone, and gRPC is about to cancel this.
                    await asyncio.Event().wait()

        try:
            async with asyncio.TaskGroup() as running:
                async for request in request_iterator:
                    running.create_task(self._run(request, send))
        except* _Status:
            assert self.script.status is not None
            await context.abort(*self.script.status)

    async def _find(self, name: str, context: Any) -> ServedModel:
        if name not in self.models:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        return self.models[name]

    async def _run(self, request: Any, send: Callable[[Any], Any]) -> None:
        seen = Seen(request.id)
        self.seen.append(seen)
        self.running += 1
        self._tell()
        try:
            await self._answer(request, seen, send)
        except Refused as refused:
            failed = service_pb2.ModelStreamInferResponse(error_message=f"[request id: {request.id}] {refused}")
            failed.infer_response.id = request.id
            await send(failed)
        except asyncio.CancelledError:
            seen.cancelled_at = asyncio.get_running_loop().time()
            raise
        finally:
            self.running -= 1
            self._tell()

    async def _answer(self, request: Any, seen: Seen, send: Callable[[Any], Any]) -> None:
        model = self.models.get(request.model_name)
        if model is None:
            raise Refused(f"Request for unknown model: '{request.model_name}' is not found")
        seen.inputs = model.read(request.model_name, request)
        asked = _Asked.of(seen.inputs)
        if asked.prompt_tokens >= self._window:
            raise Refused(asked.too_long(self._window))
        words = self.script.words or tuple(_WORDS[(asked.seed + i) % len(_WORDS)] for i in range(self._window))
        most = min(asked.max_tokens, self._window - asked.prompt_tokens)
        answer = list(_pieces(words, most, asked))
        due = asyncio.get_running_loop().time()
        for index, (text, reason) in enumerate(answer):
            await self._fault(index)
            if self.script.end_after == index:
                return
            due += self._token_s
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            is_last = index == len(answer) - 1
            ended = self.script.finish_reason if is_last and self.script.finish_reason else reason
            seen.tokens += 1
            await send(_response(request, model, asked, text, ended, is_last=is_last))

    async def _fault(self, index: int) -> None:
        if self.script.fail_after == index:
            if self.script.status is not None:
                raise _Status
            raise Refused(self.script.text_of_error)
        if self.script.hang_after == index:
            self._tell()
            await asyncio.Event().wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@dataclass(frozen=True)
class _Asked:
    prompt_tokens: int
    max_tokens: int
    seed: int
    stops: tuple[str, ...]
    keeps_stops: bool
    """TensorRT-LLM streams a stop string before it ends."""
    extras: frozenset[str]

    @classmethod
    def of(cls, inputs: Mapping[str, list[Value]]) -> _Asked:
        if inputs.get("exclude_input_in_output") == [False] or inputs.get("stream") != [True]:
            raise Refused("Error generating stream: When streaming, `exclude_input_in_output` = False is not allowed.")
        (prompt,) = inputs["text_input"]
        assert isinstance(prompt, bytes)
        extras = frozenset(
            name.removeprefix("return_") for name, value in inputs.items() if name.startswith("return_") and value[0]
        )
        tokens = len(prompt.decode().split())
        if "max_tokens" in inputs:
            words = [one.decode() for one in inputs.get("stop_words", []) if isinstance(one, bytes)]
            return cls(
                tokens, int(inputs["max_tokens"][0]), int(inputs.get("seed", [0])[0]), tuple(words), True, extras
            )
        said = json.loads(bytes(inputs["sampling_parameters"][0]))  # type: ignore[arg-type]
        if said.get("top_p", 1) > 1 or said.get("temperature", 0) < 0:
            raise Refused("Error generating stream: 'NoneType' object has no attribute 'lora_name'")
        return cls(tokens, said.get("max_tokens", 16), said.get("seed", 0), tuple(said.get("stop", ())), False, extras)

    def too_long(self, window: int) -> str:
        if self.keeps_stops:
            return (
                "Executor failed process requestId 7 due to the following error: Encountered an error when fetching "
                f"new request: Prompt length ({self.prompt_tokens}) exceeds maximum input length ({window})."
            )
        return (
            f"Error generating stream: The decoder prompt (length {self.prompt_tokens}) is longer than the maximum "
            f"model length of {window}. Make sure that `max_model_len` is no smaller than the number of text tokens."
        )


def _pieces(words: tuple[str, ...], most: int, asked: _Asked) -> Iterator[tuple[str, str]]:
    """Each token's text, and vLLM's finish reason after it. vLLM holds back what may begin a stop string."""
    said = "".join(words[:most])
    stops = [(at, at + len(stop)) for stop in asked.stops if (at := said.find(stop)) >= 0]
    begin, end = min(stops, default=(len(said), len(said)))
    at = 0
    for index, word in enumerate(words[:most]):
        text = word if asked.keeps_stops else word[: max(0, begin - at)]
        at += len(word)
        if stops and at >= end:
            yield text, "stop"
            return
        is_last = index == min(most, len(words)) - 1
        yield text, ("length" if index == most - 1 else "stop") if is_last else "None"


def _response(request: Any, model: ServedModel, asked: _Asked, text: str, reason: str, *, is_last: bool) -> Any:
    values: dict[str, Value] = {"text_output": text.encode()}
    told: dict[str, Value] = {
        "finish_reason": reason.encode(),
        "num_input_tokens": asked.prompt_tokens,
        "num_output_tokens": 1,
    }
    values |= {name: value for name, value in told.items() if name in asked.extras}
    response = service_pb2.ModelStreamInferResponse()
    inferred = response.infer_response
    inferred.id, inferred.model_name, inferred.model_version = request.id, request.model_name, "1"
    inferred.parameters["triton_final_response"].bool_param = is_last
    for usual, value in values.items():
        name = model.names.get(usual, usual)
        tensor = model.outputs[name]
        inferred.outputs.add(name=name, datatype=tensor.datatype, shape=[1] * len(model.shape(tensor)))
        inferred.raw_output_contents.append(packed(tensor.datatype, value))
    return response
