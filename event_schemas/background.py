"""Prompts that Parley itself submits for a conversation: for its title, and for a summary of it.

They cost their tenant like any other, wait behind all others, and are no messages of the conversation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

from event_schemas.chat import ChatMessage
from event_schemas.generation import Parameters, PromptContent, Purpose, SubmitPrompt
from event_schemas.limits import Reserved
from event_schemas.payload import Content, Sealed
from event_schemas.share import Share

Seal = Callable[[Content], Sealed]

TITLE_TOKENS = 24
SUMMARY_TOKENS = 400

_QUESTION_CHARACTERS = 2000
_ANSWER_CHARACTERS = 1000

_SUMMARISE = (
    "Summarise our conversation so far, so that it can go on from your summary alone: who wants what, facts, names,"
    " numbers, decisions, and what is still open. Write plain sentences, and nothing but the summary."
)


def title_prompt(after: SubmitPrompt, question: str, answer: str, reserved: Reserved, seal: Seal) -> SubmitPrompt:
    """For the title of the conversation that ``after`` began."""
    asked = (
        "Give this conversation a title of at most six words, in its own language. Answer with the title alone.\n\n"
        f"User: {question[:_QUESTION_CHARACTERS]}\n\nAssistant: {answer[:_ANSWER_CHARACTERS]}"
    )
    return _prompt(after, "title", None, asked, TITLE_TOKENS, reserved, seal)


def summary_tokens(window: int | None) -> int:
    """The longest summary for a model with this window, None where that is not known: a quarter of it at most."""
    return SUMMARY_TOKENS if window is None else min(SUMMARY_TOKENS, window // 4)


def summary_prompt(
    after: SubmitPrompt, up_to_message_id: UUID, tokens: int, reserved: Reserved, seal: Seal
) -> SubmitPrompt:
    """For a summary of what was said up to a message, as ``after`` was asked; it has so many tokens at most."""
    return _prompt(after, "summary", up_to_message_id, _SUMMARISE, tokens, reserved, seal)


def _prompt(
    after: SubmitPrompt, purpose: Purpose, parent: UUID | None, asked: str, tokens: int, reserved: Reserved, seal: Seal
) -> SubmitPrompt:
    generation_id = derived_id(after.generation_id, purpose)
    changes: dict[str, Any] = {
        "generation_id": generation_id,
        "parent_message_id": parent,
        "input_message_ids": (derived_id(generation_id, "message"),),
        "roles": ("user",),
        "input_tokens": max(0, reserved.tokens - tokens),
        "fallbacks": (),
        "fell_back": (),
        "parameters": Parameters(temperature=0.2, max_tokens=tokens),
        "content": seal(PromptContent(messages=(ChatMessage(role="user", content=asked),))),
        "title": None,
        "share": Share(weight=after.share.weight, priority="low"),
        "reserved": reserved,
        "purpose": purpose,
        "window": "summarise",
    }
    return SubmitPrompt(**{name: getattr(after, name) for name in SubmitPrompt.model_fields} | changes)


def derived_id(of: UUID, name: str) -> UUID:
    """A UUIDv7 of the same millisecond, always the same for the same name."""
    drawn = hashlib.sha256(of.bytes + name.encode()).digest()
    random = int.from_bytes(drawn[:10], "big")
    number = (of.int >> 80 << 80) | random
    number = number & ~(0xF << 76) | (0x7 << 76)
    return UUID(int=number & ~(0x3 << 62) | (0x2 << 62))
