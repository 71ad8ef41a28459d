"""A GGUF model in llama-cpp-python, by the library's own functions of llama.h. All of it blocks.

Its `Llama` class binds a model to one context, loses tokens of over 32 bytes, and begins each prompt with what is left
of the one before; the functions below it do none of that.
"""

from __future__ import annotations

import codecs
import ctypes
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
from jinja2 import TemplateError
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from event_schemas.chat import ChatMessage
from event_schemas.generation import Parameters
from workers.inference import transcript
from workers.inference.engine_options import EngineOptions
from workers.inference.engine_stream import Receive
from workers.inference.llamacpp import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS
from workers.inference.port import BackendUnavailable, InferenceRequest, Progress, RequestRefused
from workers.inference.stop_strings import StopCut
from workers.inference.text_request import context_length_exceeded, most_tokens
from workers.inference.threaded import Counts
from workers.inference.token_mask import TokenMask, TokenMasks

# The engine's log carries prompts. It keeps this callback as long as the process lives, and ctypes doesn't.
_NO_LOG = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(_NO_LOG, ctypes.c_void_p())

_RANDOM_SEED = 2**32 - 1
_PIECE_BYTES = 32
# What the engine's own server takes where nothing is said.
_TEMPERATURE, _TOP_K, _TOP_P, _MIN_P = 0.8, 40, 0.95, 0.05


class LlamaCppModel:
    """One model, loaded once, and ``contexts`` to compute in, each with a cache of ``window`` tokens.

    Contexts compute in turn, a batch or a token at a time, each time with all ``threads``.
    """

    def __init__(
        self,
        path: Path,
        architecture: str,
        *,
        contexts: int,
        window: int,
        gpu_layers: int,
        threads: int,
        options: EngineOptions,
        progress: Progress,
    ) -> None:
        """Raises BackendUnavailable: ``model_unusable``, ``gpu_missing``, ``engine_failed``."""
        options.check(llama_cpp)
        self._window = window
        self._turn = threading.Lock()
        self._contexts: list[Any] = []
        self._model = self._load(path, architecture, gpu_layers, options, progress)
        try:
            self._vocab = llama_cpp.llama_model_get_vocab(self._model)
            self._masks = TokenMasks(self._vocab)
            self._formatter = self._chat_formatter()
            self._batch_tokens = GPU_BATCH_TOKENS if self._on_gpu(gpu_layers) else CPU_BATCH_TOKENS
            for _ in range(contexts):
                self._contexts.append(self._context(path, contexts, threads, options))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        while self._contexts:
            llama_cpp.llama_free(self._contexts.pop())
        llama_cpp.llama_model_free(self._model)

    @property
    def chat_template(self) -> bool:
        return self._formatter is not None

    @property
    def window(self) -> int:
        return self._window

    def count(self, request: InferenceRequest) -> int:
        return len(self._prompt(request.messages))

    def complete(self, request: InferenceRequest, counts: Counts, receive: Receive) -> None:
        prompt = self._prompt(request.messages)
        counts.input_tokens = len(prompt)
        if len(prompt) >= self._window:
            raise context_length_exceeded(len(prompt), self._window)
        wanted = most_tokens(request, window=self._window, chat_template=self.chat_template)
        limit = min(wanted, self._window - len(prompt))
        mask = self._masks.of(request.response_format)
        context = self._contexts.pop()
        sampler = self._sampler(request.parameters)
        try:
            # What one prompt computed is never kept for another.
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
            for start in range(0, len(prompt), self._batch_tokens):
                if receive(""):
                    return
                self._decode(context, prompt[start : start + self._batch_tokens])
            self._answer(context, sampler, mask, limit, self._stops(request.stop), counts, receive)
        finally:
            llama_cpp.llama_sampler_free(sampler)
            self._contexts.append(context)

    def _answer(
        self,
        context: Any,
        sampler: Any,
        mask: TokenMask | None,
        limit: int,
        stops: Iterable[str],
        counts: Counts,
        receive: Receive,
    ) -> None:
        cut = StopCut(stops)
        # A character may be spread over several tokens.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            if mask is not None:
                mask.apply(context)
            token = llama_cpp.llama_sampler_sample(sampler, context, -1)
            if mask is not None:
                mask.accept(token)
            counts.output_tokens += 1
            ended = llama_cpp.llama_vocab_is_eog(self._vocab, token)
            if not ended and receive(cut.feed(decoder.decode(self._piece(token)))):
                return
            if ended or cut.found or counts.output_tokens == limit:
                break
            self._decode(context, (token,))
        receive(cut.rest())
        counts.finish_reason = "stop" if ended or cut.found else "length"

    def _decode(self, context: Any, tokens: Sequence[int]) -> None:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        with self._turn:
            code = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens)))
        if code != 0:
            raise BackendUnavailable("engine_failed", f"the engine could not compute a batch (llama_decode: {code})")

    def _prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        if self._formatter is None:
            return self._tokens(transcript.render(messages), add_special=True, parse_special=False)
        said = [{"role": message.role, "content": message.text} for message in messages]
        try:
            text: str = self._formatter(messages=said).prompt
        except Exception:  # templates raise what they like, and may quote the prompt
            raise RequestRefused(
                "invalid_request", "the model's chat template does not take these messages in this order"
            ) from None
        begun = bool(self._formatter.bos_token) and text.startswith(self._formatter.bos_token)
        return self._tokens(text, add_special=not begun, parse_special=True)

    def _tokens(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        try:
            data = text.encode()
        except UnicodeEncodeError:
            raise RequestRefused(
                "invalid_request", "the prompt holds half a surrogate pair; send valid Unicode"
            ) from None
        most = len(data) + 8
        array = (llama_cpp.llama_token * most)()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), array, most, add_special, parse_special)
        if count < 0:
            raise BackendUnavailable("engine_failed", f"the engine made {-count} tokens of {len(data)} bytes")
        tokens: list[int] = array[:count]
        return tokens

    def _piece(self, token: int) -> bytes:
        size = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            length: int = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _stops(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        return asked if self.chat_template else (*transcript.STOP_STRINGS, *asked)

    def _sampler(self, parameters: Parameters) -> Any:
        chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        penalised = (parameters.frequency_penalty or 0.0, parameters.presence_penalty or 0.0)
        words = llama_cpp.llama_vocab_n_tokens(self._vocab)
        steps = [llama_cpp.llama_sampler_init_penalties(words, self._window, 1.0, *penalised)]
        temperature = _given(parameters.temperature, _TEMPERATURE)
        if temperature <= 0:
            steps.append(llama_cpp.llama_sampler_init_greedy())
        else:
            seed = _RANDOM_SEED if parameters.seed is None else parameters.seed % _RANDOM_SEED
            steps += [
                llama_cpp.llama_sampler_init_top_k(int(_given(parameters.top_k, _TOP_K))),
                llama_cpp.llama_sampler_init_top_p(_given(parameters.top_p, _TOP_P), 1),
                llama_cpp.llama_sampler_init_min_p(_given(parameters.min_p, _MIN_P), 1),
                llama_cpp.llama_sampler_init_temp(temperature),
                llama_cpp.llama_sampler_init_dist(seed),
            ]
        for step in steps:
            llama_cpp.llama_sampler_chain_add(chain, step)
        return chain

    def _load(self, path: Path, architecture: str, gpu_layers: int, options: EngineOptions, progress: Progress) -> Any:
        def report(share: float, data: Any) -> bool:
            progress(f"loading {path.name}", min(share, 1.0) * 0.9)
            return True

        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = gpu_layers
        # Both have to outlive the call, and ctypes does not see to it.
        parameters.progress_callback = callback = llama_cpp.llama_progress_callback(report)
        shares = (ctypes.c_float * llama_cpp.llama_max_devices())(*options.tensor_split)
        if options.tensor_split:
            parameters.tensor_split = shares
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        del callback
        if model is None:
            raise BackendUnavailable(
                "engine_failed",
                f"llama.cpp could not load {path}: it does not know the architecture {architecture!r}, or memory is "
                "short; try fewer LLM_GPU_LAYERS",
            )
        return model

    def _context(self, path: Path, contexts: int, threads: int, options: EngineOptions) -> Any:
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = self._window
        parameters.n_seq_max = 1
        parameters.n_batch = parameters.n_ubatch = self._batch_tokens
        parameters.n_threads = parameters.n_threads_batch = threads
        options.apply_to_context(llama_cpp, parameters)
        context = llama_cpp.llama_init_from_model(self._model, parameters)
        if context is None:
            raise BackendUnavailable(
                "engine_failed",
                f"llama.cpp has no room for the cache of {path}: try fewer slots or a smaller LLM_CONTEXT_WINDOW (now "
                f"{contexts} × {self._window} tokens){options.doubts()}",
            )
        return context

    def _chat_formatter(self) -> Any:
        template: bytes | None = llama_cpp.llama_model_chat_template(self._model, None)
        if not template:
            return None
        try:
            return Jinja2ChatFormatter(
                template.decode(),
                eos_token=self._text_of(llama_cpp.llama_vocab_eos(self._vocab)),
                bos_token=self._text_of(llama_cpp.llama_vocab_bos(self._vocab)),
            )
        except (TemplateError, UnicodeDecodeError) as error:
            raise BackendUnavailable(
                "model_unusable", f"the model's chat template cannot be read ({error}); use another file of this model"
            ) from error

    def _text_of(self, token: int) -> str:
        return "" if token < 0 else str(llama_cpp.llama_vocab_get_text(self._vocab, token).decode())

    def _on_gpu(self, gpu_layers: int) -> bool:
        return gpu_layers != 0 and bool(llama_cpp.llama_supports_gpu_offload())


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
