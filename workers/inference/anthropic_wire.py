"""Messages as Anthropic's API takes and streams them: pure translation.

Source: Anthropic API reference, "Create a Message" and "Errors"; guides "Streaming Messages", "Vision", "Handle tool
calls", "Structured outputs", "Extended thinking", "Adaptive thinking", "Effort". What Amazon Bedrock wraps around it:
Amazon Bedrock API reference, "InvokeModelWithResponseStream".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from event_schemas.chat import ChatMessage, ImagePart, NamedTool, TextPart, Tool, ToolCall
from event_schemas.generation import FinishReason, Parameters
from workers.inference.port import (
    BackendError,
    BackendUnavailable,
    Delta,
    Finished,
    InferenceRequest,
    Item,
    NotServed,
    RateLimited,
    Reasoning,
    RequestRefused,
    ToolCallDelta,
)

_MOST_TOKENS = 4096
"""The API wants a limit. Where the prompt has none, this is what the oldest models that it serves allow."""

_UNKNOWN = ("presence_penalty", "frequency_penalty", "seed", "min_p")

_BUDGETS = {"low": 2048, "medium": 8192, "high": 16384}
"""Tokens to think with. ``minimal`` has none: it does not ask for thinking."""
_LEAST_BUDGET = 1024

_MODEL = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[-.](\d{1,2}))?(?!\d)")
_ADAPTIVE_SINCE = (4, 6)

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[^;,]*)*;base64,", re.IGNORECASE)

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

_NO_ROOM = ("rate_limit_error", "throttlingException")

Json = dict[str, Any]


def request_body(request: InferenceRequest, *, image_urls: bool = True) -> Json:
    """The request. ``image_urls``: the platform fetches images itself. Raises RequestRefused."""
    parameters = request.parameters
    _check(parameters)
    system, turns = _conversation(request.messages, image_urls)
    body: Json = {"model": request.model, "stream": True, "messages": turns}
    if system:
        body["system"] = system
    body |= _thinking(request.model, parameters, turns)
    for name in ("temperature", "top_p", "top_k"):
        if (value := getattr(parameters, name)) is not None:
            body[name] = value
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if (choice := _tool_choice(parameters)) is not None:
            body["tool_choice"] = choice
    if request.response_format is not None:
        if request.response_format.json_schema is None:
            raise RequestRefused("unsupported", "the model writes JSON by a schema only; send response_format with one")
        schema = {"type": "json_schema", "schema": request.response_format.json_schema}
        body.setdefault("output_config", {})["format"] = schema
    _check_together(body)
    return body


def _check(parameters: Parameters) -> None:
    if parameters.max_tokens is not None and parameters.max_tokens < 1:
        raise RequestRefused("invalid_request", f"max_tokens is {parameters.max_tokens}; ask for at least 1")
    if parameters.temperature is not None and parameters.temperature > 1:
        raise RequestRefused(
            "invalid_request", f"temperature is {parameters.temperature:g}; this model takes no more than 1"
        )
    for name in _UNKNOWN:
        if getattr(parameters, name) is not None:
            raise _not_had(name)
    if parameters.logprobs:
        raise _not_had("logprobs")


def _not_had(what: str) -> RequestRefused:
    return RequestRefused("unsupported", f"the prompt asks for {what}, which this model does not have")


def _check_together(body: Json) -> None:
    """What the API refuses beside thinking, without a word of its own on how to help it."""
    if "thinking" not in body:
        return
    if body.get("temperature", 1) != 1 or "top_k" in body or body.get("top_p", 1) < 0.95:
        raise RequestRefused(
            "invalid_request", "with reasoning_effort, temperature is 1, top_p at least 0.95, and there is no top_k"
        )
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        raise RequestRefused("invalid_request", "with reasoning_effort, tool_choice cannot force a tool")


def _thinking(model: str, parameters: Parameters, turns: list[Json]) -> Json:
    """``max_tokens``, and how hard to think, which counts as part of it."""
    effort = parameters.reasoning_effort
    budget = _BUDGETS.get(effort or "", 0)
    most = parameters.max_tokens or _MOST_TOKENS + budget
    body: Json = {"max_tokens": most}
    if effort is None:
        return body
    if _adaptive(model):
        body["output_config"] = {"effort": "low" if effort == "minimal" else effort}
        if budget:
            # Newer models think without saying so unless asked to.
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
        return body
    # With a budget, an answer to tool results has to repeat the thinking that led to the calls, with its signature,
    # and the record holds none.
    answers_tools = any(block["type"] == "tool_result" for block in turns[-1]["content"])
    if budget and most > _LEAST_BUDGET and not answers_tools:
        if parameters.max_tokens is not None:
            budget = min(budget, max(_LEAST_BUDGET, most // 2))  # half is left for the answer
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    return body


def _adaptive(model: str) -> bool:
    """Whether ``model`` decides itself how long to think: Claude 4.6 and later, which alone know efforts for sure. Of
    names without a version, the newest is assumed."""
    version = _MODEL.search(model)
    return version is None or (int(version[1]), int(version[2] or 0)) >= _ADAPTIVE_SINCE


def _conversation(messages: tuple[ChatMessage, ...], image_urls: bool) -> tuple[list[Json], list[Json]]:
    """The system prompt, and turns that alternate. Blank texts are left out, since the API refuses them."""
    system: list[Json] = []
    turns: list[Json] = []
    for at, message in enumerate(messages):
        blocks = [_part(part, image_urls) for part in message.parts if isinstance(part, ImagePart) or part.text.strip()]
        if message.role == "system":
            if message.images:
                raise RequestRefused("invalid_request", f"message {at} is a system message and has an image")
            system += blocks
            continue
        if message.role == "tool":
            result: Json = {"type": "tool_result", "tool_use_id": message.tool_call_id or ""}
            blocks = [{**result, "content": blocks} if blocks else result]
        blocks += [_tool_use(call, f"tool call {n} of message {at}") for n, call in enumerate(message.tool_calls)]
        role = "assistant" if message.role == "assistant" else "user"
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise RequestRefused("invalid_request", "there is nothing to answer: no message has any text")
    if turns[-1]["role"] == "assistant" and (last := turns[-1]["content"][-1])["type"] == "text":
        # The beginning of an answer may not end in white space.
        last["text"] = last["text"].rstrip()
    return system, turns


def _part(part: TextPart | ImagePart, image_urls: bool) -> Json:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if (data := _DATA_URL.match(part.url)) is not None:
        source = {"type": "base64", "media_type": data[1].lower(), "data": part.url[data.end() :]}
    elif not part.url.startswith("https://"):
        raise RequestRefused("invalid_request", "an image is neither an https URL nor a data URL in base64")
    elif not image_urls:
        raise RequestRefused("unsupported", "this platform fetches no images; send them as data URLs in base64")
    else:
        source = {"type": "url", "url": part.url}
    return {"type": "image", "source": source}


def _tool_use(call: ToolCall, which: str) -> Json:
    try:
        arguments = orjson.loads(call.arguments.strip() or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise RequestRefused("invalid_request", f"the arguments of {which} are no JSON object")
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _tool(tool: Tool) -> Json:
    said: Json = {"name": tool.name, "input_schema": {"type": "object", **(tool.parameters or {"properties": {}})}}
    if tool.description:
        said["description"] = tool.description
    if tool.strict:
        # Only where it is wanted: models before Claude 4.5 know no such field.
        said["strict"] = True
    return said


def _tool_choice(parameters: Parameters) -> Json | None:
    one_at_a_time = parameters.parallel_tool_calls is False
    match parameters.tool_choice:
        case None if not one_at_a_time:
            return None
        case "none":
            return {"type": "none"}
        case None | "auto":
            choice: Json = {"type": "auto"}
        case "required":
            choice = {"type": "any"}
        case NamedTool(name=name):
            choice = {"type": "tool", "name": name}
    return {**choice, "disable_parallel_tool_use": True} if one_at_a_time else choice


@dataclass(slots=True)
class Ending:
    """What the events of one answer have told so far beside its pieces."""

    finish_reason: FinishReason | None = None
    stop: str | None = None
    closed: bool = False
    """``message_stop`` came; nothing follows."""
    begun: Any = None
    """The usage object that it began with: the input. None: it has not begun."""
    usage: Any = None
    """The newest usage object: all output so far, and all input where that grew."""
    said_something: bool = False
    bare: dict[int, Any] = field(default_factory=dict)
    """Tool calls without a word of their arguments so far, and what they began with."""

    def finished(self) -> Finished:
        """How it ended. Only right once there is a ``finish_reason``."""
        assert self.finish_reason is not None
        last = self.usage if isinstance(self.usage, dict) else {}
        begun = self.begun if isinstance(self.begun, dict) else {}
        counts = {**begun, **{name: value for name, value in last.items() if value is not None}}
        fresh, output = _count(counts.get("input_tokens")), _count(last.get("output_tokens"))
        written = _count(counts.get("cache_creation_input_tokens") or 0)
        read = _count(counts.get("cache_read_input_tokens") or 0)
        if fresh is None or written is None or read is None or output is None or (self.said_something and not output):
            return Finished(self.finish_reason, None, None, stop=self.stop)
        details = last.get("output_tokens_details")
        thought = _count(details.get("thinking_tokens")) if isinstance(details, dict) else None
        return Finished(self.finish_reason, fresh + written + read, output, read, min(thought or 0, output), self.stop)


def read_event(event: Json, ending: Ending) -> Iterator[Item]:
    """The pieces of the answer in an event. What else it tells goes into ``ending``.

    Raises BackendUnavailable, or what of it says that the answer had not begun: the provider broke off.
    """
    match event.get("type"):
        case "content_block_delta":
            yield from _piece(event["index"], event["delta"], ending)
        case "content_block_start" if (block := event["content_block"])["type"] == "tool_use":
            ending.said_something = True
            ending.bare[event["index"]] = block.get("input") or {}
            yield ToolCallDelta(event["index"], "", block["id"], block["name"])
        case "message_start":
            ending.begun = event["message"].get("usage") or {}
        case "message_delta":
            ending.usage = event.get("usage")
            if (reason := event["delta"].get("stop_reason")) is not None:
                ending.finish_reason = _FINISH.get(reason, "stop")
                ending.stop = event["delta"].get("stop_sequence")
            if ending.finish_reason == "tool_calls":
                # A call without arguments comes without a delta, and what its client reads has to be JSON.
                for number, arguments in ending.bare.items():
                    yield ToolCallDelta(number, orjson.dumps(arguments).decode())
                ending.bare.clear()
        case "message_stop":
            ending.closed = True
        case "error":
            raise _failure(event.get("error"), begun=ending.begun is not None)


def _piece(index: int, delta: Json, ending: Ending) -> Iterator[Item]:
    match delta["type"]:
        case "text_delta" if text := delta["text"]:
            ending.said_something = True
            yield Delta(text)
        case "thinking_delta" if text := delta["thinking"]:
            ending.said_something = True
            yield Reasoning(text)
        case "input_json_delta" if text := delta["partial_json"]:
            ending.bare.pop(index, None)
            yield ToolCallDelta(index, text)


def bedrock_event(headers: Mapping[str, Any], payload: bytes) -> Json:
    """The event in a message of an AWS event stream; nothing where it holds none. Raises ValueError, KeyError."""
    match headers.get(":message-type"):
        case "exception":
            return {"type": "error", "error": {"type": headers.get(":exception-type")}}
        case "error":
            return {"type": "error", "error": {"type": headers.get(":error-code")}}
    if headers.get(":event-type") != "chunk":
        return {}
    event: Json = orjson.loads(base64.b64decode(orjson.loads(payload)["bytes"]))
    return event


def _failure(error: Any, *, begun: bool) -> BackendError:
    """An error in the stream. It came after a 200, so whatever it says, another attempt may succeed."""
    kind = error.get("type") if isinstance(error, dict) else None
    named = kind if isinstance(kind, str) and kind.isidentifier() else "without a code"
    if begun:
        return BackendUnavailable("provider_failed", f"the provider broke off its answer ({named})")
    if kind in _NO_ROOM:
        return RateLimited(f"the provider has no room for the key ({named})", None)
    return NotServed("provider_failed", f"the provider failed before its answer began ({named})")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
