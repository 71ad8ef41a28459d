"""Answers as Anthropic's clients read them: https://platform.claude.com/docs/en/api/messages

What a model says of them is for the API pages; nothing is validated by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from event_schemas.chat import Piece
from gateway.anthropic.blocks import Blocks, Mark, Opened, Said, arguments_of

_STOPPED = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class BrokenInput(ValueError):
    """The model wrote an input of a tool that is no JSON object. The message names the tool, not what was written."""


class UsedTokens(BaseModel):
    input_tokens: int = Field(description="tokens of the prompt that were read anew", examples=[5])
    cache_creation_input_tokens: int = Field(description="always 0: nobody says", examples=[0])
    cache_read_input_tokens: int = Field(description="tokens of the prompt that were read before", examples=[0])
    output_tokens: int = Field(description="tokens of the answer, thought ones too", examples=[2])
    output_tokens_details: dict[str, int] = Field(
        description="how many were thought", examples=[{"thinking_tokens": 0}]
    )


class AnsweredMessage(BaseModel):
    id: str = Field(description="of the generation", examples=["msg_01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"])
    type: Literal["message"] = Field(description="always `message`", examples=["message"])
    role: Literal["assistant"] = Field(description="always `assistant`", examples=["assistant"])
    model: str = Field(description="the model that answered", examples=["gemma-3-270m"])
    content: list[dict[str, Any]] = Field(
        description="`thinking`, `text` and `tool_use`, as they came", examples=[[{"type": "text", "text": "Hi."}]]
    )
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"] = Field(
        description="why it ended; a stop sequence is an `end_turn` where the model's server does not tell",
        examples=["end_turn"],
    )
    stop_sequence: str | None = Field(description="the one that ended it", examples=[None])
    usage: UsedTokens = Field(description="what it used")


class CountedTokens(BaseModel):
    input_tokens: int = Field(
        description="by the model's own vocabulary where it is at hand; else estimated", examples=[14]
    )


class ModelInfo(BaseModel):
    type: Literal["model"] = Field("model", description="always `model`", examples=["model"])
    id: str = Field(description="what requests call it", examples=["gemma-3-270m"])
    display_name: str = Field(description="the same", examples=["gemma-3-270m"])
    created_at: str = Field(
        "1970-01-01T00:00:00Z",
        description="always this: nobody says when it was made",
        examples=["1970-01-01T00:00:00Z"],
    )
    lifecycle: Literal["active"] = Field("active", description="always `active`", examples=["active"])
    max_input_tokens: int | None = Field(description="its window; null where it is not known", examples=[32768])


class ModelPage(BaseModel):
    data: list[ModelInfo] = Field(description="those that the caller may ask, and other names for them")
    has_more: bool = Field(description="whether there are more on the far side of this page", examples=[False])
    first_id: str | None = Field(description="for `before_id`; null where the page is empty", examples=["gemma-3-270m"])
    last_id: str | None = Field(description="for `after_id`; null where the page is empty", examples=["gemma-3-270m"])


def usage(used: Mapping[str, Any]) -> dict[str, Any]:
    """``used`` as Parley counts: cached tokens are in the input there, and beside it here."""
    cached = used.get("cached_input_tokens") or 0
    return {
        "input_tokens": max(used["input_tokens"] - cached, 0),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": used["output_tokens"],
        "output_tokens_details": {"thinking_tokens": used.get("reasoning_tokens") or 0},
    }


def stopped(completed: Mapping[str, Any], stops: Sequence[str]) -> dict[str, str | None]:
    """``stop_reason`` and ``stop_sequence``, of how an answer to a prompt with ``stops`` was completed."""
    place: int | None = completed.get("stopped_by")
    if place is not None and place < len(stops):
        return {"stop_reason": "stop_sequence", "stop_sequence": stops[place]}
    return {"stop_reason": _STOPPED[completed["finish_reason"]], "stop_sequence": None}


def begun(mark: Opened) -> dict[str, Any]:
    """A content block before anything is in it."""
    match mark.kind:
        case "thinking":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "text":
            return {"type": "text", "text": ""}
        case "tool_use":
            return {"type": "tool_use", "id": mark.id, "name": mark.name, "input": {}}


def content(pieces: Sequence[Piece], finish_reason: str, *, shows_thinking: bool) -> list[dict[str, Any]]:
    """All content blocks of an answer. A tool's input that was cut off is empty; raises BrokenInput for others."""
    blocks = Blocks(shows_thinking=shows_thinking)
    found: list[dict[str, Any]] = []
    said: list[list[str]] = []
    for mark in (*(mark for piece in pieces for mark in blocks.take(piece)), *blocks.end()):
        _put(mark, found, said)
    for block, texts in zip(found, said, strict=True):
        text = "".join(texts)
        if block["type"] != "tool_use":
            block[block["type"]] = text
        elif text.strip():
            given = arguments_of(text)
            if given is None and finish_reason != "length":
                raise BrokenInput(
                    f"The model asked for the tool {block['name']!r} with an input that is no JSON object."
                )
            block["input"] = given or {}
    return found


def _put(mark: Mark, found: list[dict[str, Any]], said: list[list[str]]) -> None:
    if isinstance(mark, Opened):
        found.append(begun(mark))
        said.append([])
    elif isinstance(mark, Said):
        said[mark.at].append(mark.text)


def message(
    id: str,
    model: str,
    content: list[dict[str, Any]],
    stopped: Mapping[str, str | None],
    used: Mapping[str, Any],
) -> dict[str, Any]:
    """The message object; ``stopped`` and ``used`` as ``stopped`` and ``usage`` give them."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        **stopped,
        "usage": used,
    }
