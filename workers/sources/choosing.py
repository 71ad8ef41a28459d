"""The model picks sources for a question: an answer constrained to the names of what there is. Decides; does no I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from event_schemas.chat import ChatMessage, ResponseFormat
from event_schemas.generation import Parameters

PARAMETERS = Parameters(max_tokens=512)
_QUESTION_CHARACTERS = 4000
_NOTHING = ""


class NoChoice(ValueError):
    """What the model said is no choice. The message holds nothing of it."""


def asked(question: str, there_is: Sequence[tuple[str, str]], most: int) -> ChatMessage:
    """``there_is``: names, and what is there."""
    listed = "\n".join(f"- {json.dumps(name, ensure_ascii=False)}: {what}" for name, what in there_is)
    example = dict.fromkeys(_places(len(there_is), most), _NOTHING)
    example[next(iter(example))] = there_is[0][0]
    return ChatMessage(
        role="user",
        content=f"Which of these sources would help to answer the question below? Pick {len(example)} at most, the most"
        f" helpful first; an empty string stands where none would help.\n\n{listed}\n\nAnswer with JSON alone, such as"
        f" {json.dumps(example, ensure_ascii=False)}.\n\nThe question:\n{question[:_QUESTION_CHARACTERS]}",
    )


def answer_format(names: Sequence[str], most: int) -> ResponseFormat:
    # A place for each, and no list: small models write lists without an end, and not every engine can bound one.
    places = _places(len(names), most)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {place: {"type": "string", "enum": [*names, _NOTHING]} for place in places},
        "required": places,
        "additionalProperties": False,
    }
    return ResponseFormat(name="sources", json_schema=schema)


def picked(said: str, names: Sequence[str], most: int) -> list[int]:
    """Which of ``names`` were picked, by their numbers from 0, each once. Raises NoChoice."""
    begin, end = said.find("{"), said.rfind("}")
    try:
        told = json.loads(said[begin : end + 1])
        chosen = [told[place] for place in _places(len(names), most) if place in told]
    except (ValueError, TypeError, RecursionError):
        raise NoChoice("it is not the JSON that was asked for") from None
    if not chosen:
        raise NoChoice("it is not the JSON that was asked for")
    if not all(isinstance(one, str) and one in (*names, _NOTHING) for one in chosen):
        raise NoChoice("it names what is not there")
    return [names.index(one) for one in dict.fromkeys(chosen) if one != _NOTHING]


def _places(there_are: int, most: int) -> list[str]:
    return [f"source_{number}" for number in range(1, min(there_are, most) + 1)]
