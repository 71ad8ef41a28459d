"""A causal language model in `transformers`. All of it blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
)
from transformers import MinPLogitsWarper as MinP
from transformers import TemperatureLogitsWarper as Temperature
from transformers import TopKLogitsWarper as TopK
from transformers import TopPLogitsWarper as TopP
from transformers.utils import logging

from event_schemas.chat import ChatMessage
from event_schemas.generation import Parameters
from workers.inference import transcript
from workers.inference.engine_stream import Receive
from workers.inference.model_files import DEFAULT_CONTEXT_WINDOW
from workers.inference.port import BackendUnavailable, InferenceRequest, RequestRefused
from workers.inference.stop_strings import StopCut
from workers.inference.text_request import context_length_exceeded, most_tokens
from workers.inference.threaded import Counts

_SEEDS = 2**63


class _Stopped(Exception):
    """Nobody wants the rest."""


def gpu_refusal(pool: str, gpus: Sequence[int]) -> str | None:
    """Why a pool pinned to ``gpus`` can't run, and what to do; None where it can."""
    if torch.cuda.is_available():
        return None
    numbers = ", ".join(map(str, gpus))
    return (
        f"[pools.{pool}].gpus names {numbers}, and torch {torch.__version__} sees no GPU there; correct it in "
        "settings.toml, or find out with nvidia-smi why it does not work"
    )


class TransformersModel:
    """One model, loaded once; each completion has a cache of its own, up to ``window`` tokens."""

    def __init__(self, model: Any, tokenizer: Any, window: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._window = window
        ends = model.generation_config.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        self._ends: tuple[int, ...] = () if ends is None else (ends,) if isinstance(ends, int) else tuple(ends)
        # Asked between any two modules, since a long prompt is computed in one go.
        self._running = threading.local()
        for module in model.modules():
            module.register_forward_pre_hook(self._stop_if_nobody_reads)

    @classmethod
    def load(cls, name: str, *, wanted_window: int | None, threads: int) -> TransformersModel:
        """Raises BackendUnavailable ``model_unusable``."""
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(threads)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                name, trust_remote_code=False, use_safetensors=True, dtype="auto"
            )
        except Exception as error:  # the hub's client, the library and its formats each raise their own
            raise BackendUnavailable(
                "model_unusable",
                f"the model {name} can't be loaded: {type(error).__name__}: {_first_line(error)}; name a folder or a "
                "repository of the hub that has a config, a tokenizer and whole *.safetensors files, and needs no code "
                "of its own (HF_TOKEN opens gated ones)",
            ) from error
        window = _window(name, model, wanted_window)
        return cls(model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, window)

    @property
    def chat_template(self) -> bool:
        return bool(self._tokenizer.chat_template)

    @property
    def window(self) -> int:
        return self._window

    def count(self, request: InferenceRequest) -> int:
        return len(self._prompt(request.messages))

    def close(self) -> None:
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def complete(self, request: InferenceRequest, counts: Counts, receive: Receive) -> None:
        prompt = self._prompt(request.messages)
        counts.input_tokens = len(prompt)
        if len(prompt) >= self._window:
            raise context_length_exceeded(len(prompt), self._window)
        wanted = most_tokens(request, window=self._window, chat_template=self.chat_template)
        limit = min(wanted, self._window - len(prompt))
        stops = request.stop
        cut = StopCut(stops if self.chat_template else (*transcript.STOP_STRINGS, *stops))
        self._running.receive = receive
        try:
            tokens = self._model.generate(
                torch.tensor([prompt], device=self._model.device),
                attention_mask=torch.ones((1, len(prompt)), dtype=torch.long, device=self._model.device),
                generation_config=self._configuration(limit),
                logits_processor=self._sampling(request.parameters, len(prompt)),
                stopping_criteria=StoppingCriteriaList([_Until(lambda: cut.found or receive(""))]),
                streamer=_Pieces(self._tokenizer, lambda text: receive(cut.feed(text))),
            )[0, len(prompt) :]
        except _Stopped:
            return
        finally:
            self._running.receive = None
        counts.output_tokens = len(tokens)
        receive(cut.rest())
        ended = cut.found or int(tokens[-1]) in self._ends
        if ended or len(tokens) == limit:
            counts.finish_reason = "stop" if ended else "length"

    def _prompt(self, messages: Sequence[ChatMessage]) -> list[int]:
        try:
            if not self.chat_template:
                return self._tokens(transcript.render(messages), add_special_tokens=True)
            said = [{"role": message.role, "content": message.text} for message in messages]
            text = self._tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
            return self._tokens(text, add_special_tokens=False)
        except UnicodeEncodeError:
            raise RequestRefused(
                "invalid_request", "the prompt holds half a surrogate pair; send valid Unicode"
            ) from None
        except TemplateError:
            raise RequestRefused(
                "invalid_request", "the model's chat template does not take these messages in this order"
            ) from None

    def _tokens(self, text: str, *, add_special_tokens: bool) -> list[int]:
        text.encode()
        tokens: list[int] = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False).input_ids
        return tokens

    def _configuration(self, limit: int) -> Any:
        # Greedy: what is drawn, `_Draw` has drawn.
        ends = list(self._ends) or None
        padding = self._ends[0] if self._ends else 0
        return GenerationConfig(
            max_new_tokens=limit, do_sample=False, num_beams=1, eos_token_id=ends, pad_token_id=padding
        )

    def _sampling(self, parameters: Parameters, input_tokens: int) -> Any:
        own = self._model.generation_config
        steps: list[Any] = []
        if parameters.presence_penalty or parameters.frequency_penalty:
            steps.append(
                _Penalties(input_tokens, parameters.presence_penalty or 0.0, parameters.frequency_penalty or 0.0)
            )
        temperature = _first(parameters.temperature, own.temperature, 1.0)
        if temperature > 0:
            steps.append(Temperature(float(temperature)))
            if top_k := _first(parameters.top_k, own.top_k, 0):
                steps.append(TopK(int(top_k)))
            if (top_p := _first(parameters.top_p, own.top_p, 1.0)) < 1:
                steps.append(TopP(float(top_p)))
            if min_p := _first(parameters.min_p, own.min_p, 0.0):
                steps.append(MinP(float(min_p)))
            steps.append(_Draw(parameters.seed, self._model.device))
        return LogitsProcessorList(steps)

    def _stop_if_nobody_reads(self, module: Any, given: Any) -> None:
        receive: Receive | None = getattr(self._running, "receive", None)
        if receive is not None and receive(""):
            raise _Stopped


class _Pieces(TextStreamer):  # type: ignore[misc]  # may not be installed
    """Hands words on as soon as they are whole."""

    def __init__(self, tokenizer: Any, hand_on: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._hand_on = hand_on

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._hand_on(text)


class _Until(StoppingCriteria):  # type: ignore[misc]  # may not be installed
    def __init__(self, enough: Callable[[], bool]) -> None:
        self._enough = enough

    def __call__(self, input_ids: Any, scores: Any, **more: Any) -> Any:
        return torch.full((input_ids.shape[0],), self._enough(), dtype=torch.bool, device=input_ids.device)


class _Penalties(LogitsProcessor):  # type: ignore[misc]  # may not be installed
    """OpenAI's: they count what was answered, not what was asked."""

    def __init__(self, input_tokens: int, presence: float, frequency: float) -> None:
        self._input_tokens, self._presence, self._frequency = input_tokens, presence, frequency

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        answered = input_ids[:, self._input_tokens :]
        times = torch.zeros_like(scores).scatter_add_(1, answered, torch.ones_like(answered, dtype=scores.dtype))
        return scores - self._frequency * times - self._presence * (times > 0)


class _Draw(LogitsProcessor):  # type: ignore[misc]  # may not be installed
    """Draws the token, and leaves no other to choose. `generate` would draw with torch's one generator, which all
    generations of the process share."""

    def __init__(self, seed: int | None, device: Any) -> None:
        self._generator = torch.Generator(device=device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed % _SEEDS)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        drawn = torch.multinomial(torch.softmax(scores, dim=-1), 1, generator=self._generator)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def _window(name: str, model: Any, wanted: int | None) -> int:
    has: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if wanted is None:
        return min(DEFAULT_CONTEXT_WINDOW, has or DEFAULT_CONTEXT_WINDOW)
    if has is not None and wanted > has:
        raise BackendUnavailable(
            "model_unusable",
            f"a context window of {wanted} tokens is wanted and the model {name} has {has}; set context_window (or "
            f"LLM_CONTEXT_WINDOW) to at most {has}",
        )
    return wanted


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
