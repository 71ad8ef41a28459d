"""The template for base models, which carry none of their own: a transcript that the model carries on."""

from __future__ import annotations

from collections.abc import Sequence

from event_schemas.chat import ChatMessage

_LABELS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}

STOP_STRINGS: tuple[str, ...] = tuple(f"\n{label}:" for label in _LABELS.values())
"""Where the model begins to speak for somebody else."""


def render(messages: Sequence[ChatMessage]) -> str:
    """The conversation as a transcript that ends where the assistant is about to speak."""
    lines = [f"{_LABELS[message.role]}: {message.text}" for message in messages]
    return "\n".join([*lines, f"{_LABELS['assistant']}:"])
