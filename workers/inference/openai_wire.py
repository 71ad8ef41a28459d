"""Chat completions as OpenAI and the many servers that speak like it write them: pure translation.

Source: OpenAI API reference, "Create chat completion" and "The chat completion chunk object"; what other servers add
(``reasoning_content``, ``top_k``, ``min_p``) is vLLM's, "OpenAI-Compatible Server".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from event_schemas.chat import ChatMessage, ImagePart, NamedTool, TextPart
from event_schemas.generation import FinishReason
from event_schemas.logprobs import TokenLogprob
from workers.inference import token_logprobs
from workers.inference.port import Delta, Finished, InferenceRequest, Item, Reasoning, RequestRefused, ToolCallDelta

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "reasoning_effort")
_BEYOND_OPENAI = ("top_k", "min_p")

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}

Json = dict[str, Any]


def request_body(request: InferenceRequest, *, max_tokens_field: str, usage: bool) -> Json:
    """The request.

    ``max_tokens_field`` is ``max_completion_tokens`` for OpenAI itself, ``max_tokens`` for older servers. ``usage``:
    the stream is to end with what was used. Raises RequestRefused.
    """
    parameters = request.parameters
    if parameters.max_tokens is not None and parameters.max_tokens < 1:
        raise RequestRefused("invalid_request", f"max_tokens is {parameters.max_tokens}; ask for at least 1")
    body: Json = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
    }
    if usage:
        body["stream_options"] = {"include_usage": True}
    body |= {name: value for name in (*_SAMPLING, *_BEYOND_OPENAI) if (value := getattr(parameters, name)) is not None}
    if parameters.max_tokens is not None:
        body[max_tokens_field] = parameters.max_tokens
    if request.stop:
        body["stop"] = list(request.stop)
    if parameters.logprobs:
        body["logprobs"] = True
        if parameters.top_logprobs is not None:
            body["top_logprobs"] = parameters.top_logprobs
    if request.tools:
        body["tools"] = [{"type": "function", "function": tool.model_dump(exclude_none=True)} for tool in request.tools]
        if parameters.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = parameters.parallel_tool_calls
        match parameters.tool_choice:
            case None:
                pass
            case NamedTool(name=name):
                body["tool_choice"] = {"type": "function", "function": {"name": name}}
            case choice:
                body["tool_choice"] = choice
    if request.response_format is not None:
        body["response_format"] = _response_format(request)
    return body


def _response_format(request: InferenceRequest) -> Json:
    wanted = request.response_format
    assert wanted is not None
    if wanted.json_schema is None:
        return {"type": "json_object"}
    schema: Json = {"name": wanted.name, "schema": wanted.json_schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}


def _message(message: ChatMessage) -> Json:
    said: Json = {"role": message.role}
    if isinstance(message.content, str):
        said["content"] = message.content
    else:
        said["content"] = [_part(part) for part in message.content]
    if message.tool_calls:
        said["content"] = said["content"] or None
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        said["tool_call_id"] = message.tool_call_id
    return said


def _part(part: TextPart | ImagePart) -> Json:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    image: Json = {"url": part.url}
    if part.detail is not None:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


@dataclass(slots=True)
class Ending:
    """What the chunks of one answer have told so far beside its text.

    ``top_logprobs``: how many tokens are wanted beside each one of the text; None: no logprobs at all.
    """

    finish_reason: FinishReason | None = None
    stop: str | None = None
    usage: Any = None
    said_something: bool = False
    top_logprobs: int | None = None

    def finished(self) -> Finished:
        """How it ended. Only right once there is a ``finish_reason``."""
        assert self.finish_reason is not None
        usage = self.usage if isinstance(self.usage, dict) else {}
        input_tokens, output_tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        if input_tokens is None or output_tokens is None or (self.said_something and not output_tokens):
            return Finished(self.finish_reason, None, None, stop=self.stop)
        cached = _count(usage.get("prompt_tokens_details"), "cached_tokens") or 0
        reasoning = _count(usage.get("completion_tokens_details"), "reasoning_tokens") or 0
        cached, reasoning = min(cached, input_tokens), min(reasoning, output_tokens)
        return Finished(self.finish_reason, input_tokens, output_tokens, cached, reasoning, self.stop)


def read_chunk(chunk: Json, ending: Ending) -> Iterator[Item]:
    """The pieces of the answer in a chunk. What else it tells goes into ``ending``."""
    if (usage := chunk.get("usage")) is not None:
        ending.usage = usage
    for choice in chunk.get("choices") or ():
        if (reason := choice.get("finish_reason")) is not None:
            ending.finish_reason = _FINISH.get(reason, "stop")
            # vLLM's and SGLang's own: a stop sequence, or the number of a token.
            stop = choice.get("stop_reason", choice.get("matched_stop"))
            ending.stop = stop if isinstance(stop, str) else None
        delta = choice.get("delta")
        if not delta:
            continue
        if text := delta.get("reasoning_content") or delta.get("reasoning"):
            ending.said_something = True
            yield Reasoning(text)
        logprobs: Sequence[TokenLogprob] = () if ending.top_logprobs is None else _logprobs(choice, ending.top_logprobs)
        if (text := delta.get("content") or delta.get("refusal")) or logprobs:
            ending.said_something = True
            yield Delta(text or "", logprobs)
        for call in delta.get("tool_calls") or ():
            ending.said_something = True
            function = call.get("function") or {}
            yield ToolCallDelta(
                call.get("index", 0), function.get("arguments") or "", call.get("id"), function.get("name")
            )


def _logprobs(choice: Json, most: int) -> list[TokenLogprob]:
    """Those of the chunk's text. Some servers tell them of reasoning and tool calls in the same place."""
    if any(choice["delta"].get(name) for name in ("reasoning_content", "reasoning", "tool_calls")):
        return []
    return token_logprobs.read(choice.get("logprobs"), most)


def _count(counts: Any, name: str) -> int | None:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
