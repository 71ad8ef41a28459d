"""The order of messages and blocks in requests to Anthropic's API.

Source: API reference, "Create a Message"; tool results: guide "Handle tool calls"; thinking: guide "Extended thinking",
section "Preserving thinking blocks"; prefill: API reference, "Errors", section "Prefill not supported"; system
messages: guide "Mid-conversation system messages"; citations: API reference, "Versions", 2026-10-21.
"""

from __future__ import annotations

from typing import Any

from tests.providers.model import Model
from tests.providers.problem import Problem

LATEST = "2026-10-21"
_BLOCKS = {
    "user": {"text", "image", "document", "search_result", "tool_result"},
    "assistant": {"text", "thinking", "redacted_thinking", "tool_use"},
    "system": {"text"},
}


def texts(messages: list[Any], model: Model, version: str, thinks: bool) -> list[str]:
    """All texts of a conversation, whose last turn but one ``thinks`` if it called tools.

    Raises `Problem`.
    """
    if not messages:
        raise _invalid("messages: at least one message is required")
    turns: list[tuple[str, list[dict[str, Any]], int]] = []
    system: list[str] = []
    for at, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role == "system" and model.system_messages and at:
            system += [found for block in _blocks(at, message, last=False) for found in _said(block)]
            continue
        if role == "system":
            raise _invalid(
                'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not '
                '"system" as an input message role.'
            )
        if role not in ("user", "assistant"):
            raise _invalid(f"messages.{at}.role: Input should be 'user' or 'assistant'")
        if extra := set(message) - {"role", "content"}:
            raise _invalid(f"messages.{at}.{sorted(extra)[0]}: Extra inputs are not permitted")
        blocks = _blocks(at, message, last=at == len(messages) - 1)
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)  # The API reference: consecutive turns of one role are combined.
        else:
            turns.append((role, list(blocks), at))
    if turns[0][0] != "user":
        raise _invalid('messages: first message must use the "user" role')
    _results(turns)
    if thinks and len(turns) > 1 and any(block["type"] == "tool_result" for block in turns[-1][1]):
        first = turns[-2][1][0]["type"]
        if first not in {"thinking", "redacted_thinking"}:
            raise _invalid(
                f"messages.{turns[-2][2]}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                f"`{first}`. When `thinking` is enabled, a final `assistant` message must start with a thinking block."
            )
    if turns[-1][0] == "assistant":
        _prefilled(turns[-1][1], model)
    if version == LATEST and any(
        block.get("citations") for role, blocks, _ in turns for block in blocks if role == "user"
    ):
        raise _invalid("messages: `citations` are not permitted on text blocks of user messages")
    return [*system, *(found for _, blocks, _ in turns for block in blocks for found in _said(block))]


def _blocks(at: int, message: dict[str, Any], last: bool) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise _invalid(f"messages.{at}.content: Input should be a valid string or list")
    if not content and not (last and message["role"] == "assistant"):
        raise _invalid(
            f"messages.{at}: all messages must have non-empty content except for the optional final assistant message"
        )
    for number_, block in enumerate(content):
        where = f"messages.{at}.content.{number_}"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in _BLOCKS[message["role"]]:
            raise _invalid(f"{where}: Input tag '{kind}' found using 'type' does not match any of the expected tags")
        match block:
            case {"type": "text", "text": ""}:
                raise _invalid("messages: text content blocks must be non-empty")
            case {"type": "text", "text": str()} | {"type": "image" | "document" | "search_result"}:
                pass
            case {"type": "thinking", "thinking": str(), "signature": str()} | {
                "type": "redacted_thinking",
                "data": str(),
            }:
                pass
            case {"type": "tool_use", "id": str(), "name": str(), "input": dict()}:
                pass
            case {"type": "tool_result", "tool_use_id": str()}:
                pass
            case _:
                raise _invalid(f"{where}.{kind}: Field required")
    return content


def _results(turns: list[tuple[str, list[dict[str, Any]], int]]) -> None:
    """Every ``tool_use`` has its result at the beginning of the next turn, and no result stands elsewhere."""
    for turn, (_, blocks, at) in enumerate(turns):
        before = turns[turn - 1][1] if turn else []
        used = {block["id"] for block in before if block["type"] == "tool_use"}
        answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        for wrong in answered:
            if wrong not in used:
                raise _invalid(
                    f"messages.{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {wrong}. Each "
                    "`tool_result` block must have a corresponding `tool_use` block in the previous message."
                )
        if missing := used - set(answered):
            raise _missing(missing, turns[turn - 1][2])
        if any(block["type"] != "tool_result" for block in blocks[: len(answered)]):
            raise _invalid(f"messages.{at}: `tool_result` blocks must come first in the content of a user message.")
    if open_ := {block["id"] for block in turns[-1][1] if block["type"] == "tool_use"}:
        raise _missing(open_, turns[-1][2])


def _missing(ids: set[str], at: int) -> Problem:
    return _invalid(
        f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(sorted(ids))}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message."
    )


def _prefilled(blocks: list[dict[str, Any]], model: Model) -> None:
    if not model.prefill:
        raise _invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    if blocks and blocks[-1]["type"] == "text" and blocks[-1]["text"] != blocks[-1]["text"].rstrip():
        raise _invalid("messages: final assistant content cannot end with trailing whitespace")


def _said(block: dict[str, Any]) -> list[str]:
    if block["type"] == "text":
        return [block["text"]]
    if block["type"] != "tool_result":
        return []
    content = block.get("content", "")
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if part.get("type") == "text"]


def _invalid(message: str) -> Problem:
    return Problem("invalid", message)
