"""What Anthropic's Messages API accepts.

Source: API reference, "Create a Message" and "Versions"; thinking: guide "Extended thinking"; what a path that names
the model wants: Amazon Bedrock user guide, "Anthropic Claude Messages API", and Vertex AI documentation, "Request
predictions with Claude models". Server tools are not served, and refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.providers import anthropic_turns
from tests.providers.answer import Asked, Tool
from tests.providers.anthropic_turns import LATEST
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
    text,
    texts,
    whole,
)
from tests.providers.problem import Problem

_PARAMETERS: dict[str, Check] = {
    "max_tokens": whole(0),
    "messages": sequence,
    "model": text,
    "cache_control": or_null(mapping),
    "inference_geo": or_null(text),
    "metadata": lambda value: isinstance(value, dict) and set(value) <= {"user_id"},
    "output_config": mapping,
    "service_tier": one_of("auto", "standard_only"),
    "stop_sequences": lambda value: texts(value) and all(stop.strip() for stop in value),
    "stream": boolean,
    "system": either(text, sequence),
    "temperature": number(0, 1),
    "thinking": mapping,
    "tool_choice": mapping,
    "tools": sequence,
    "top_k": whole(0),
    "top_p": number(0, 1),
}
_LEAST_BUDGET = 1024
VERSIONS = frozenset({"2023-01-01", "2023-06-01", LATEST})


def asked(
    body: Any,
    models: Mapping[str, Model],
    version: str | None = None,
    model: str | None = None,
    versions: frozenset[str] = VERSIONS,
) -> Asked:
    """What a request asks for. ``version`` is its header ``anthropic-version``; where the path names the ``model``, the
    body has a field for that. ``versions`` are all that there are.

    Raises `Problem`.
    """
    if not isinstance(body, dict):
        raise Problem("invalid", "The request body is not valid JSON: expected an object")
    in_path = frozenset({"anthropic_version", "anthropic_beta"}) if model is not None else frozenset()
    if (unknown := first_unknown(body, _PARAMETERS, in_path)) is not None or (model is not None and "model" in body):
        raise _invalid(f"{unknown or 'model'}: Extra inputs are not permitted")
    if model is not None:
        version = body.get("anthropic_version")
    if version is None:
        raise _invalid("anthropic_version: Field required" if model else "anthropic-version: header is required")
    if version not in versions:
        raise _invalid(f'anthropic-version: "{version}" is not a valid version')
    if version == LATEST and (sampling := {"temperature", "top_p", "top_k"} & set(body)):
        raise _invalid(f"{min(sampling)}: Extra inputs are not permitted")
    for required in ("max_tokens", "messages") if model is not None else ("max_tokens", "messages", "model"):
        if required not in body:
            raise _invalid(f"{required}: Field required")
    if (wrong := first_wrong(body, _PARAMETERS)) is not None:
        raise _invalid(f"{wrong}: Input is not valid")
    name = model or body["model"]
    known = models.get(name)
    if known is None:
        raise Problem("not_found", f"model: {name}")
    most = body["max_tokens"]
    if most > known.most_output:
        allowed = f"which is the maximum allowed number of output tokens for {name}"
        raise _invalid(f"max_tokens: {most} > {known.most_output}, {allowed}")
    _thinking(body)
    tools = tuple(_tool(at, tool) for at, tool in enumerate(body.get("tools", ())))
    choice = body.get("tool_choice", {"type": "auto"})
    thinks = body.get("thinking", {}).get("type") == "enabled"
    found = [*_system(body.get("system", "")), *anthropic_turns.texts(body["messages"], known, version, thinks)]
    result = Asked(
        model=name,
        stream=bool(body.get("stream")),
        texts=tuple(found),
        most_tokens=most,
        stops=tuple(body.get("stop_sequences", ())),
        tools=tools,
        tool_choice=_tool_choice(choice, tools, "tool_choice" in body),
        parallel=not choice.get("disable_parallel_tool_use", False),
        schema=_schema(body.get("output_config", {})),
    )
    if result.input_tokens > known.context:
        raise Problem("context", f"prompt is too long: {result.input_tokens} tokens > {known.context} maximum")
    return result


def _thinking(body: dict[str, Any]) -> None:
    match body.get("thinking", {"type": "disabled"}):
        case {"type": "disabled" | "adaptive" | "between_tools"}:
            return
        case {"type": "enabled", "budget_tokens": int(budget)}:
            if budget < _LEAST_BUDGET:
                raise _invalid(
                    f"thinking.enabled.budget_tokens: Input should be greater than or equal to {_LEAST_BUDGET}"
                )
            if budget >= body["max_tokens"]:
                raise _invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
            if body.get("temperature", 1) != 1:
                raise _invalid("`temperature` may only be set to 1 when thinking is enabled.")
            if body.get("tool_choice", {}).get("type") in {"any", "tool"}:
                raise _invalid("Thinking may not be enabled when tool_choice forces tool use.")
        case _:
            tags = "'adaptive', 'between_tools', 'disabled', 'enabled'"
            raise _invalid(f"thinking: Input does not match any of the expected tags: {tags}")


def _system(system: Any) -> list[str]:
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system
    for at, block in enumerate(blocks):
        if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
            raise _invalid(f"system.{at}: Input should be a text block")
        if isinstance(system, list) and not block["text"]:
            raise _invalid("system: text content blocks must be non-empty")
    return [block["text"] for block in blocks]


def _schema(output: dict[str, Any]) -> Mapping[str, Any] | None:
    """Guide "Structured outputs"."""
    match output.get("format"):
        case None:
            return None
        case {"type": "json_schema", "schema": dict(schema)}:
            return schema
        case _:
            raise _invalid("output_config.format: Input does not match any of the expected tags: 'json_schema'")


def _tool(at: int, tool: Any) -> Tool:
    match tool:
        case {"name": str(name), "input_schema": {"type": "object"} as schema} if (
            tool.get("type", "custom") == "custom"
        ):
            return Tool(name, schema)
        case _:
            raise _invalid(f"tools.{at}.custom.input_schema: Field required")


def _tool_choice(choice: dict[str, Any], tools: tuple[Tool, ...], given: bool) -> str:
    if given and not tools:
        raise _invalid("tool_choice may only be specified while providing tools.")
    match choice:
        case {"type": "auto"}:
            return "auto"
        case {"type": "any"}:
            return "required"
        case {"type": "none"}:
            return "none"
        case {"type": "tool", "name": str(name)} if name in {tool.name for tool in tools}:
            return f"={name}"
        case _:
            raise _invalid("tool_choice: Input does not match any of the expected tags or tools")


def _invalid(message: str) -> Problem:
    return Problem("invalid", message)
