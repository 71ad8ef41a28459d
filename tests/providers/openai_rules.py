"""What OpenAI's Chat Completions API accepts.

Source: API reference, "Create chat completion"; the order of tool messages: guide "Function calling". Not served, and
refused as an invalid value: ``n`` above 1, audio, the deprecated ``functions``, custom tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.providers.answer import Asked, Tool
from tests.providers.model import Model
from tests.providers.parameters import (
    Check,
    boolean,
    either,
    first_unknown,
    first_wrong,
    mapping,
    number,
    one_of,
    or_null,
    sequence,
    strings_by_name,
    text,
    texts,
    whole,
)
from tests.providers.problem import Problem

_PARAMETERS: dict[str, Check] = {
    "messages": sequence,
    "model": text,
    "frequency_penalty": or_null(number(-2, 2)),
    "logit_bias": or_null(mapping),
    "logprobs": or_null(boolean),
    "max_completion_tokens": or_null(whole(1)),
    "max_tokens": or_null(whole(1)),
    "metadata": or_null(lambda value: strings_by_name(value) and len(value) <= 16),
    "modalities": or_null(lambda value: value == ["text"]),
    "n": or_null(whole(1, 1)),
    "parallel_tool_calls": boolean,
    "prediction": or_null(mapping),
    "presence_penalty": or_null(number(-2, 2)),
    "prompt_cache_key": or_null(text),
    "prompt_cache_options": mapping,
    "prompt_cache_retention": or_null(one_of("in_memory", "24h")),
    "reasoning_effort": or_null(one_of("none", "minimal", "low", "medium", "high", "xhigh", "max")),
    "response_format": mapping,
    "safety_identifier": or_null(text),
    "seed": or_null(whole(-(2**63), 2**63 - 1)),
    "service_tier": or_null(one_of("auto", "default", "flex", "scale", "priority", "fast")),
    "stop": or_null(either(text, lambda value: texts(value) and len(value) <= 4)),
    "store": or_null(boolean),
    "stream": or_null(boolean),
    "stream_options": or_null(mapping),
    "temperature": or_null(number(0, 2)),
    "tool_choice": either(one_of("none", "auto", "required"), mapping),
    "tools": lambda value: isinstance(value, list) and 1 <= len(value) <= 128,
    "top_logprobs": or_null(whole(0, 20)),
    "top_p": or_null(number(0, 1)),
    "user": text,
    "verbosity": or_null(one_of("low", "medium", "high")),
}
_STREAM_OPTIONS: dict[str, Check] = {"include_usage": boolean, "include_obfuscation": boolean}
_MESSAGES: dict[str, frozenset[str]] = {
    "developer": frozenset({"role", "content", "name"}),
    "system": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "refusal", "tool_calls"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}
_PARTS = {"user": {"text", "image_url", "input_audio", "file"}, "assistant": {"text", "refusal"}}


def asked(body: Any, models: Mapping[str, Model], extra: frozenset[str], deployment: str | None = None) -> Asked:
    """What a request asks for. ``extra`` names parameters that a compatible server knows besides OpenAI's;
    ``deployment`` is Azure's name for the model.

    Raises `Problem`.
    """
    if not isinstance(body, dict):
        raise Problem("invalid", "We could not parse the JSON body of your request.")
    if (unknown := first_unknown(body, _PARAMETERS, extra)) is not None:
        raise Problem("invalid", f"Unknown parameter: '{unknown}'.", unknown, "unknown_parameter")
    for required in ("messages", "model") if deployment is None else ("messages",):
        if required not in body:
            message = f"Missing required parameter: '{required}'."
            raise Problem("invalid", message, required, "missing_required_parameter")
    if (wrong := first_wrong(body, _PARAMETERS)) is not None:
        raise _invalid(wrong, f"Invalid value for '{wrong}'.")
    name = deployment or body["model"]
    model = models.get(name)
    if model is None:
        raise Problem("not_found", f"The model `{name}` does not exist or you do not have access to it.")
    stream = bool(body.get("stream"))
    options = body.get("stream_options")
    if options is not None:
        if not stream:
            raise _invalid("stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
        if first_unknown(options, _STREAM_OPTIONS) or first_wrong(options, _STREAM_OPTIONS):
            raise _invalid("stream_options", "Invalid value for 'stream_options'.")
    if model.reasoning:
        _no_sampling(body)
    most = body.get("max_completion_tokens")
    if body.get("max_tokens") is not None:
        if most is not None:
            message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
            raise _invalid("max_tokens", message)
        most = body["max_tokens"]
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise _invalid("top_logprobs", "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.")
    tools = _tools(body)
    stop = body.get("stop") or ()
    result = Asked(
        model=name,
        stream=stream,
        texts=tuple(_texts(body["messages"])),
        most_tokens=most,
        stops=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=body.get("seed"),
        tools=tools,
        tool_choice=_tool_choice(body.get("tool_choice", "auto"), tools),
        parallel=body.get("parallel_tool_calls", True),
        schema=_schema(body.get("response_format", {"type": "text"})),
        include_usage=bool((options or {}).get("include_usage")),
        logprobs=(body.get("top_logprobs") or 0) if body.get("logprobs") else None,
    )
    if result.input_tokens + (most or 0) > model.context:
        message = (
            f"This model's maximum context length is {model.context} tokens. However, you requested "
            f"{result.input_tokens + (most or 0)} tokens ({result.input_tokens} in the messages, {most or 0} in the "
            "completion). Please reduce the length of the messages or completion."
        )
        raise Problem("context", message, "messages")
    return result


def _no_sampling(body: dict[str, Any]) -> None:
    """Guide "Reasoning models": these take ``max_completion_tokens`` only, sample as they like, and do not say how."""
    if body.get("max_tokens") is not None:
        message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        raise Problem("invalid", message, "max_tokens", "unsupported_parameter")
    for name, only in (
        ("temperature", 1),
        ("top_p", 1),
        ("presence_penalty", 0),
        ("frequency_penalty", 0),
        ("logprobs", False),
    ):
        if body.get(name) not in (None, only):
            message = f"Unsupported value: '{name}' does not support {body[name]} with this model."
            raise Problem("invalid", message, name, "unsupported_value")


def _texts(messages: list[Any]) -> list[str]:
    if not messages:
        raise Problem("invalid", "Invalid 'messages': empty array.", "messages", "empty_array")
    found: list[str] = []
    unanswered: set[str] = set()
    for at, message in enumerate(messages):
        where = f"messages.[{at}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _MESSAGES:
            raise _invalid(f"{where}.role", f"Invalid value: '{role}'. Supported values are: {', '.join(_MESSAGES)}.")
        if extra := set(message) - _MESSAGES[role]:
            name = f"{where}.{sorted(extra)[0]}"
            raise Problem("invalid", f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        if role == "tool":
            if message.get("tool_call_id") not in unanswered:
                text_ = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                raise Problem("invalid", f"Invalid parameter: {text_}", f"{where}.role")
            unanswered.remove(message["tool_call_id"])
        elif unanswered:
            raise _unanswered(unanswered, f"{where}.role")
        if role == "assistant" and message.get("tool_calls") is not None:
            unanswered = _call_ids(message["tool_calls"], where)
        found += _content(message, role, where)
    if unanswered:
        raise _unanswered(unanswered, f"messages.[{len(messages) - 1}].role")
    return found


def _unanswered(ids: set[str], where: str) -> Problem:
    return Problem(
        "invalid",
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(sorted(ids))}",
        where,
    )


def _call_ids(calls: Any, where: str) -> set[str]:
    if not isinstance(calls, list) or not calls:
        raise Problem("invalid", f"Invalid '{where}.tool_calls': empty array.", f"{where}.tool_calls", "empty_array")
    for at, call in enumerate(calls):
        match call:
            case {"id": str(), "type": "function", "function": {"name": str(), "arguments": str()}, **rest} if not rest:
                pass
            case _:
                raise _invalid(f"{where}.tool_calls[{at}]", f"Invalid value for '{where}.tool_calls[{at}]'.")
    return {call["id"] for call in calls}


def _content(message: dict[str, Any], role: str, where: str) -> list[str]:
    content = message.get("content")
    if content is None and role == "assistant" and (message.get("tool_calls") or message.get("refusal")):
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list) or not content:
        raise _invalid(f"{where}.content", f"Invalid value for 'content': expected a string, got {content!r}.")
    found = []
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS.get(role, {"text"}) or not isinstance(part.get(kind), str | dict):
            raise _invalid(f"{where}.content[{at}].type", f"Invalid value: '{kind}'.")
        if kind == "text":
            found.append(str(part["text"]))
    return found


def _tools(body: dict[str, Any]) -> tuple[Tool, ...]:
    tools = []
    for at, tool in enumerate(body.get("tools", ())):
        match tool:
            case {"type": "function", "function": {"name": str(name)} as function} if set(tool) == {"type", "function"}:
                if unknown := set(function) - {"name", "description", "parameters", "strict"}:
                    where = f"tools[{at}].function.{sorted(unknown)[0]}"
                    raise Problem("invalid", f"Unknown parameter: '{where}'.", where, "unknown_parameter")
                tools.append(Tool(name, function.get("parameters") or {}))
            case _:
                raise _invalid(f"tools[{at}]", f"Invalid value for 'tools[{at}]'.")
    if not tools and {"tool_choice", "parallel_tool_calls"} & set(body):
        name = "tool_choice" if "tool_choice" in body else "parallel_tool_calls"
        raise _invalid(name, f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.")
    return tuple(tools)


def _tool_choice(choice: Any, tools: tuple[Tool, ...]) -> str:
    match choice:
        case str():
            return choice
        case {"type": "function", "function": {"name": str(name)}} if name in {tool.name for tool in tools}:
            return f"={name}"
        case _:
            raise _invalid("tool_choice", "Invalid value for 'tool_choice'.")


def _schema(response_format: Any) -> Mapping[str, Any] | None:
    match response_format:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return {"properties": {"answer": {"type": "string"}}}
        case {"type": "json_schema", "json_schema": {"name": str(), "schema": dict(schema)}}:
            return schema
        case _:
            raise _invalid("response_format", "Invalid value for 'response_format'.")


def _invalid(param: str, message: str) -> Problem:
    return Problem("invalid", message, param, "invalid_value")
