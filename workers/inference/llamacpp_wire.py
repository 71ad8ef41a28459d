"""What is said to llama.cpp and what it says: pure translation between the port and the engine's JSON."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from event_schemas.chat import ChatMessage
from event_schemas.logprobs import TokenLogprob
from workers.inference import token_logprobs, transcript
from workers.inference.held_schema import held_schema
from workers.inference.port import BackendError, BackendUnavailable, InferenceRequest, RequestRefused
from workers.inference.text_request import check_text_request, context_length_exceeded, most_tokens

log = logging.getLogger(__name__)

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")
_RANDOM_SEED = 2**32 - 1


@dataclass(slots=True)
class Ending:
    """What the chunks of one answer have told so far beside its text.

    ``top_logprobs``: how many tokens are wanted beside each one of the text; None: no logprobs at all. ``logprobs`` are
    those of the newest chunk.
    """

    input_tokens: int = 0
    output_tokens: int | None = None
    finish_reason: Literal["stop", "length"] | None = None
    error: dict[str, Any] | None = None
    top_logprobs: int | None = None
    logprobs: Sequence[TokenLogprob] = ()
    cached_tokens: int = 0


def request_body(request: InferenceRequest, *, window: int, chat_template: bool) -> bytes:
    """The request as the engine's JSON, but for its slot. Raises RequestRefused."""
    parameters = request.parameters
    check_text_request(request)
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,  # a sign of life a batch, at which a cancellation can be answered
        "max_tokens": most_tokens(request, window=window, chat_template=chat_template),
    }
    for name in _SAMPLING:
        value = getattr(parameters, name)
        if value is not None:
            body[name] = value
    if parameters.seed is not None:
        # The engine takes 32 bits, and its highest number means a random seed.
        body["seed"] = parameters.seed % _RANDOM_SEED
    if (top := token_logprobs.wanted(parameters)) is not None:
        # Asked for no others, the engine tells nothing of the token itself either.
        others = max(top, 1)
        body |= {"logprobs": True, "top_logprobs": others} if chat_template else {"logprobs": others}
    stops = tuple(stop for stop in request.stop if stop)
    if chat_template:
        body["messages"] = [{"role": message.role, "content": message.text} for message in request.messages]
    else:
        body["prompt"] = transcript.render(request.messages)
        stops = tuple(dict.fromkeys((*transcript.STOP_STRINGS, *stops)))
    if stops:
        body["stop"] = stops
    if request.response_format is not None and request.response_format.json_schema is not None:
        # The engine takes no notice of a `response_format` where a chat template is without a parser of its own.
        body["json_schema"] = held_schema(request.response_format.json_schema)
    try:
        return orjson.dumps(body)
    except TypeError:
        raise RequestRefused("invalid_request", "the prompt holds half a surrogate pair; send valid Unicode") from None


def in_slot(body: bytes, slot: int, *, restored: bool) -> bytes:
    """``body``, a request, to be run in this slot, from what it holds where that was restored for it."""
    return body[:-1] + b',"id_slot":%d,"cache_prompt":%b}' % (slot, b"true" if restored else b"false")


def has_begun(chunk: str) -> bool:
    """Whether the chunk tells that the engine has read something of its prompt, and not only that it is about to."""
    progress = orjson.loads(chunk).get("prompt_progress")
    return progress is not None and progress["processed"] > progress["cache"]


def counting(messages: Sequence[ChatMessage], *, chat_template: bool) -> tuple[str, dict[str, Any]]:
    """Which question tells how many tokens ``messages`` have, and its body."""
    if chat_template:
        said = [{"role": message.role, "content": message.text} for message in messages]
        return "/v1/chat/completions/input_tokens", {"messages": said}
    return "/tokenize", {"content": transcript.render(messages), "add_special": True}


def counted(told: dict[str, Any]) -> int:
    """What the answer to ``counting`` says."""
    return len(told["tokens"]) if "tokens" in told else int(told["input_tokens"])


def read_chunk(chunk: str, ending: Ending) -> str:
    """The text of a chunk, maybe empty. What else it tells goes into ``ending``."""
    told = orjson.loads(chunk)
    if "error" in told:
        ending.error = told["error"]
        return ""
    if usage := told.get("usage"):
        ending.input_tokens = usage["prompt_tokens"]
        ending.output_tokens = usage["completion_tokens"]
        ending.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    if progress := told.get("prompt_progress"):
        ending.input_tokens = progress["total"]
    if not told["choices"]:
        return ""
    choice = told["choices"][0]
    if reason := choice["finish_reason"]:
        ending.finish_reason = "length" if reason == "length" else "stop"
    if ending.top_logprobs is not None:
        ending.logprobs = token_logprobs.read(choice.get("logprobs"), ending.top_logprobs)
    text: str | None = choice["delta"].get("content") if "delta" in choice else choice["text"]
    return text or ""


def engine_error(error: dict[str, Any], window: int) -> BackendError:
    """The engine's error as the port's. Its own words may quote the prompt, so they go to the debug log only."""
    log.debug("engine error: %s", error)
    kind, code = error.get("type"), error.get("code")
    if kind == "exceed_context_size_error":
        tokens = error.get("n_prompt_tokens")
        return context_length_exceeded(tokens if isinstance(tokens, int) else None, window)
    if isinstance(code, int) and 400 <= code < 500:
        return refused(str(kind))
    return BackendUnavailable("engine_failed", f"the engine failed ({kind}, code {code})")


def engine_failure(failure: Exception, *, begun: bool) -> BackendError:
    """What the engine threw, as the port's error. A chat template that objects throws before the prompt is begun."""
    log.debug("engine failure: %s", failure)
    if isinstance(failure, RuntimeError) and not begun:
        return refused("chat template")
    return BackendUnavailable("engine_failed", f"the engine broke off: {type(failure).__name__}")


def refused(kind: str) -> RequestRefused:
    """``kind`` is what the engine says that it does not take."""
    return RequestRefused(
        "invalid_request",
        f"the engine refused the request ({kind}): a parameter is out of range, or the model's chat template does not "
        "take these messages in this order",
    )
