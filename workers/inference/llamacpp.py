"""llama.cpp in process: the `xllamacpp` wheel, one GGUF model, continuous batching.

A conversation goes through the chat template that the file carries. A base model has none; it gets a transcript.

Prompts of different tenants share the engine, so nothing that one prompt computed is kept for another; a conversation
that was suspended gets back what was read of itself alone. They do share its batches, whose size shifts rounding: a
seed, or temperature 0, gives the same answer again only while nothing else runs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from importlib import metadata
from pathlib import Path
from typing import Any

from workers.inference import token_logprobs
from workers.inference.engine_options import EngineOptions, usable_cores
from workers.inference.engine_slots import EngineSlots
from workers.inference.engine_socket import EngineRefusal, EngineSocket
from workers.inference.engine_stream import Receive
from workers.inference.gguf import GgufHeader, ModelError, read_header
from workers.inference.llamacpp_wire import (
    Ending,
    counted,
    counting,
    engine_error,
    engine_failure,
    has_begun,
    in_slot,
    read_chunk,
    refused,
    request_body,
)
from workers.inference.model_files import choose_context_window
from workers.inference.port import (
    BackendUnavailable,
    Counted,
    Delta,
    Finished,
    InferenceRequest,
    Item,
    Progress,
)
from workers.inference.slot_states import SlotStates
from workers.inference.text_request import check_text_request, context_length_exceeded
from workers.inference.threaded import Counts

# The engine looks at a cancellation between two batches, so on a CPU a batch has to be short: 32 tokens of a small
# model take 0.1 s on two cores, and prompts are not read measurably slower than with the engine's default of 2048.
CPU_BATCH_TOKENS = 32
GPU_BATCH_TOKENS = 512

_READ_BYTES = 16 * 1024 * 1024


class LlamaCppBackend:
    """``slots`` generations at a time, each with ``context_window`` tokens; the others wait their turn.

    ``context_window`` None is the smaller of 4096 and what the model has. ``gpu_layers`` -1 is all of them.
    ``threads`` None is one a core that this process may use, less one: the engine's threads spin while they
    wait, and would take their time from Postgres and the APIs beside it. ``options.gpus`` chooses nothing here: the
    process was started with `gpus.visible`, and this finds out whether they are there.
    """

    def __init__(
        self,
        model_file: Path,
        *,
        slots: int,
        context_window: int | None = None,
        gpu_layers: int = -1,
        threads: int | None = None,
        options: EngineOptions = EngineOptions(),  # noqa: B008 - frozen
    ) -> None:
        self._model_file = model_file
        self._slot_count = slots
        self._slots = EngineSlots(slots)
        self._wanted_window = context_window
        self._options = options
        self._gpu_layers = 0 if options.gpus == () else gpu_layers
        self._threads = threads or max(1, usable_cores() - 1)
        self._window = 0
        self._chat_template = False
        self._server: Any = None
        self._socket: EngineSocket | None = None
        self._states_folder: Path | None = None
        self._states: SlotStates | None = None
        self._facts = ""

    @property
    def context_window(self) -> int:
        """Tokens of prompt and answer together. 0 until started."""
        return self._window

    async def start(self, progress: Progress) -> None:
        """Load the model. Raises BackendUnavailable: ``model_unusable``, ``engine_missing``, ``gpu_missing``,
        ``engine_failed``.

        The wheel holds the interpreter while it builds the engine, so the loop stands still for that part of it.
        """
        if self._server is not None:
            raise RuntimeError("the backend is already started")
        try:
            header = await asyncio.to_thread(read_header, self._model_file)
            self._window = choose_context_window(self._model_file, header, self._wanted_window)
        except ModelError as error:
            raise BackendUnavailable("model_unusable", str(error)) from error
        self._chat_template = header.chat_template
        file, options = self._model_file.stat(), self._options
        facts = (self._model_file.name, file.st_size, file.st_mtime_ns, self._window, options.kv_cache_type)
        self._facts = repr(("xllamacpp", metadata.version("xllamacpp"), *facts, options.flash_attention))
        self._server = await asyncio.to_thread(self._load, header, progress)
        self._slots.open()
        progress("the model is loaded", 1.0)

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        self._slots.check_open()
        body = request_body(request, window=self._window, chat_template=self._chat_template)
        stream = await self._slots.begin(
            lambda slot, receive: self._complete(body, request.state_file, slot, receive), request.state_name
        )
        try:
            ending = Ending(top_logprobs=token_logprobs.wanted(request.parameters))
            at_start = not self._chat_template
            while (chunk := await stream.next_chunk()) is not None:
                text = read_chunk(chunk, ending)
                if ending.input_tokens >= self._window:
                    raise context_length_exceeded(ending.input_tokens, self._window)
                if at_start:
                    # The blank after "Assistant:" belongs to the template.
                    text = text.lstrip()
                    at_start = not text
                if text:
                    yield Delta(text, ending.logprobs)
            yield self._finished(ending, stream.failure)
        finally:
            stream.stop()

    async def count(self, request: InferenceRequest) -> Counted:
        self._slots.check_open()
        check_text_request(request)
        counts = Counts()

        def count(slot: int, receive: Receive) -> None:
            counts.input_tokens = self._count(request)

        # In a slot, so that nobody closes the engine meanwhile.
        stream = await self._slots.begin_beside(count)
        await stream.next_chunk()
        if stream.failure is not None:
            counts.finished(stream.failure)
        return Counted(counts.input_tokens, self._window)

    def _count(self, request: InferenceRequest) -> int:
        path, body = counting(request.messages, chat_template=self._chat_template)
        assert self._socket is not None
        try:
            return counted(self._socket.ask(path, body))
        except EngineRefusal:
            raise refused("chat template") from None

    def keep_states(self, folder: Path) -> None:
        self._states_folder = folder

    @property
    def state_facts(self) -> str:
        return self._facts

    async def save_state(self, name: str) -> Path | None:
        states = self._states
        assert states is not None, "it was told where to keep states before it was started"
        saved: list[Path | None] = []
        stream = await self._slots.begin_where(name, lambda slot, _: saved.append(states.save(slot)))
        if stream is None:
            return None
        await stream.next_chunk()
        if stream.failure is not None:
            raise stream.failure
        return saved[0]

    async def close(self) -> None:
        await self._slots.close()
        # Letting the engine go waits for its own threads.
        engines, self._server = [self._server], None
        await asyncio.to_thread(engines.clear)
        if self._socket is not None:
            self._socket.close()

    def _finished(self, ending: Ending, failure: Exception | None) -> Finished:
        if failure is not None:
            begun = not self._chat_template or ending.input_tokens > 0
            raise engine_failure(failure, begun=begun) from None
        if ending.error is not None:
            raise engine_error(ending.error, self._window)
        self._slots.check_open()
        if ending.finish_reason is None or ending.output_tokens is None:
            raise BackendUnavailable("engine_lost", "the engine ended the answer without saying how")
        return Finished(ending.finish_reason, ending.input_tokens, ending.output_tokens, ending.cached_tokens)

    def _complete(self, body: bytes, state: Path | None, slot: int, receive: Receive) -> None:
        restored = state is not None and self._states is not None and self._states.restore(slot, state)
        begun = False

        def heard(chunk: str) -> bool:
            nonlocal begun
            if chunk and not begun and (begun := has_begun(chunk)):
                self._slots.has_read(slot)
            return receive(chunk)

        if receive(""):
            return
        said = in_slot(body, slot, restored=restored).decode()
        if self._chat_template:
            self._server.handle_chat_completions(said, heard)
        else:
            self._server.handle_completions(said, heard)

    def _load(self, header: GgufHeader, progress: Progress) -> Any:
        name = self._model_file.name
        try:
            import xllamacpp
        except ImportError as error:
            raise BackendUnavailable(
                "engine_missing", f"xllamacpp can't be imported ({error}); install it with `pip install xllamacpp`"
            ) from error
        self._options.check(xllamacpp)
        _read_through(self._model_file, header.size, lambda share: progress(f"reading {name}", share * 0.8))
        progress(f"loading {name} into llama.cpp", 0.8)
        self._socket = EngineSocket()
        if self._states_folder is not None:
            self._states = SlotStates(self._socket, self._states_folder)
        try:
            return xllamacpp.Server(self._engine_parameters(xllamacpp, self._socket))
        except RuntimeError as error:
            self._socket.close()
            raise BackendUnavailable(
                "engine_failed",
                f"llama.cpp could not load {self._model_file}: it does not know the architecture "
                f"{header.architecture!r}, or memory is short; try fewer slots, a smaller LLM_CONTEXT_WINDOW (now "
                f"{self._slot_count} × {self._window} tokens) or fewer LLM_GPU_LAYERS"
                f"{self._options.doubts()}",
            ) from error

    def _engine_parameters(self, xllamacpp: Any, socket: EngineSocket) -> Any:
        gpu = self._gpu_layers != 0 and any(_is_gpu(device) for device in xllamacpp.get_device_info())
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self._model_file)
        parameters.n_parallel = self._slot_count
        parameters.n_ctx = self._window * self._slot_count
        parameters.n_gpu_layers = self._gpu_layers
        self._options.apply(xllamacpp, parameters)
        parameters.fit_params = False  # would shrink the window or the layers without a word
        parameters.cpuparams.n_threads = self._threads
        parameters.cpuparams_batch.n_threads = self._threads
        parameters.n_batch = max(GPU_BATCH_TOKENS if gpu else CPU_BATCH_TOKENS, self._slot_count)
        parameters.n_ubatch = parameters.n_batch
        parameters.cont_batching = True
        parameters.ctx_shift = False
        parameters.warmup = True
        parameters.cache_prompt = False
        parameters.cache_idle_slots = False
        parameters.cache_ram_mib = 0
        parameters.force_pure_content_parser = True
        parameters.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
        parameters.verbosity = -1  # its log carries prompts
        parameters.hostnames = [str(socket.path)]
        parameters.api_keys = [socket.key]
        parameters.n_threads_http = 1
        parameters.endpoint_slots = False
        if self._states_folder is not None:
            parameters.slot_save_path = f"{self._states_folder}/"
        parameters.ui = False
        return parameters


def _is_gpu(device: dict[str, Any]) -> bool:
    return "GPU" in str(device.get("type"))


def _read_through(path: Path, size: int, progress: Any) -> None:
    """Bring the file into the page cache, where it fits, so that the engine's own loading is short."""
    if not hasattr(os, "sysconf") or size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2:
        return
    with path.open("rb", buffering=0) as file:
        block = bytearray(_READ_BYTES)
        done = 0
        while read := file.readinto(block):
            done += read
            progress(done / size)
