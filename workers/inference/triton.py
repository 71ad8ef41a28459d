"""Triton Inference Server over gRPC: a text model of the vLLM backend or of TensorRT-LLM.

Each generation has a stream of its own on one shared channel, so that cancelling it cancels nothing else. Its one
request is followed by the end of requests, and then the server ends the stream once the model has answered for the
last time: that is the sign of completion. ``triton_final_response`` is not relied on, since a model may put it on an
empty response, which only goes to who asks for it (Triton, "Decoupled Backends and Models", "Knowing When a Decoupled
Inference Request is Complete"), and the asyncio client cannot.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from workers.inference.port import BackendError, BackendUnavailable, Delta, InferenceRequest, Item, Progress
from workers.inference.triton_errors import STALE, triton_error
from workers.inference.triton_tensors import Model, Tensors, read_model
from workers.inference.triton_wire import Answer, Input, check_request, request_id, request_inputs

_ASK_S = 10.0
"""How long a question about the server or a model may take. A generation has no such limit here."""

_KEEPALIVE_MS = 330_000
"""Finds a server that vanished. Triton's default takes pings that are less than 300 s apart for an attack."""


class TritonBackend:
    """``url`` is host:port of the gRPC endpoint. ``slots`` generations run at a time; the others wait their turn.

    ``tls`` trusts the authorities that gRPC comes with, or those of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
    """

    def __init__(self, url: str, *, tensors: Tensors, slots: int, tls: bool = False) -> None:
        self._url = url
        self._tensors = tensors
        self._slots = asyncio.Semaphore(slots)
        self._tls = tls
        self._client: Any = None
        self._models: dict[str, Model] = {}
        self._streams: set[Any] = set()

    async def start(self, progress: Progress) -> None:
        """Raises BackendUnavailable: ``engine_missing``, ``provider_unreachable``. Models are looked at when asked."""
        if self._client is not None:
            raise RuntimeError("the backend is already started")
        try:
            import grpc
            import numpy
            from tritonclient import utils
            from tritonclient.grpc import InferInput, KeepAliveOptions
            from tritonclient.grpc.aio import InferenceServerClient
        except ImportError as error:
            raise BackendUnavailable(
                "engine_missing",
                f"Triton's client can't be imported ({error}); install it with `pip install 'parley[triton]'`",
            ) from error
        self._rpc_error = grpc.RpcError
        self._triton_error = utils.InferenceServerException
        self._numpy = numpy
        self._numpy_type = utils.triton_to_np_dtype
        self._infer_input = InferInput
        self._client = InferenceServerClient(
            self._url, ssl=self._tls, keepalive_options=KeepAliveOptions(keepalive_time_ms=_KEEPALIVE_MS)
        )
        try:
            await self._find_server()
        except BaseException:
            await self.close()
            raise
        progress("the Triton server is ready", 1.0)

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        self._check_open()
        check_request(request)
        async with self._slots:
            self._check_open()
            model = await self._model(request.model)
            answer = Answer(request, model)
            stream = self._client.stream_infer(_one(self._asked(request, model)))
            self._streams.add(stream)
            try:
                while not answer.is_cut and (response := await self._next(stream, model.name)) is not None:
                    if text := answer.read(response):
                        yield Delta(text)
                if text := answer.rest():
                    yield Delta(text)
            finally:
                self._streams.discard(stream)
                stream.cancel()
        yield answer.finished()

    async def count(self, request: InferenceRequest) -> None:
        """Only its provider can."""

    async def close(self) -> None:
        client, self._client = self._client, None
        for stream in self._streams:
            stream.cancel()
        if client is not None:
            await client.close()

    async def _find_server(self) -> None:
        """Triton, "Health" in KServe's protocol."""
        try:
            live = await self._client.is_server_live(client_timeout=_ASK_S)
            ready = live and await self._client.is_server_ready(client_timeout=_ASK_S)
        except self._triton_error as error:
            raise BackendUnavailable(
                "provider_unreachable",
                f"no Triton server answers at {self._url} ({_code(error)}); start tritonserver, and give its gRPC "
                "endpoint, which by default has port 8001, as host:port without a scheme",
            ) from None
        if not ready:
            raise BackendUnavailable(
                "provider_unreachable",
                f"the Triton server at {self._url} is not ready: a model of its repository is loading, or failed to; "
                "see its log",
            )

    async def _model(self, name: str) -> Model:
        model = self._models.get(name)
        if model is None:
            with self._errors(name):
                metadata = await self._client.get_model_metadata(name, client_timeout=_ASK_S)
                self._check_open()
                answer = await self._client.get_model_config(name, client_timeout=_ASK_S)
            self._check_open()
            decoupled = answer.config.model_transaction_policy.decoupled
            model = read_model(name, metadata, decoupled=decoupled, tensors=self._tensors)
            self._models[name] = model
        return model

    def _asked(self, request: InferenceRequest, model: Model) -> dict[str, Any]:
        """The request as Triton's client takes it. It is made before the call, whose iterator may not fail: the call
        would look cancelled."""
        return {
            "model_name": model.name,
            "inputs": [self._tensor(one) for one in request_inputs(request, model)],
            "request_id": request_id(request),
        }

    def _tensor(self, one: Input) -> Any:
        tensor = self._infer_input(one.name, one.shape, one.datatype)
        values = self._numpy.array(one.values, dtype=self._numpy_type(one.datatype))
        return tensor.set_data_from_numpy(values.reshape(one.shape))

    async def _next(self, stream: Any, model: str) -> Any:
        """The next ModelInferResponse; None at the end."""
        self._check_open()
        with self._errors(model):
            try:
                result, error = await anext(stream)
            except StopAsyncIteration:
                return None
        self._check_open()
        if error is not None:
            raise self._failed(None, error.message(), model)
        return result.get_response()

    @contextmanager
    def _errors(self, model: str) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError:
            # gRPC gives it also to who waits for a call that somebody else cancels, as close() does.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._check_open()
            raise self._failed("CANCELLED", "cancelled on this side", model) from None
        except self._triton_error as error:
            raise self._failed(_code(error), error.message() or "", model) from None
        except self._rpc_error as error:
            self._check_open()
            raise self._failed(error.code().name, error.details() or "", model) from None

    def _failed(self, code: str | None, said: str, model: str) -> BackendError:
        error = triton_error(code, said, model=model, url=self._url)
        if error.reason in (STALE, "unknown_model", "model_not_ready"):
            self._models.pop(model, None)
        return error

    def _check_open(self) -> None:
        if self._client is None:
            raise _closed()


async def _one(request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    yield request


def _code(error: Any) -> str:
    """``StatusCode.UNAVAILABLE`` is how Triton's client writes a code."""
    return str(error.status() or "UNKNOWN").removeprefix("StatusCode.")


def _closed() -> BackendUnavailable:
    return BackendUnavailable("engine_closed", "the Triton client is not open; it was closed or never started")
