"""Tokens of a prompt before anybody has counted them."""

from __future__ import annotations

from collections.abc import Sequence

from event_schemas.chat import ChatMessage

_CHARACTERS_A_TOKEN = 4
"""Rule of thumb for English text (OpenAI, "What are tokens and how to count them?")."""

_IMAGE_TOKENS = 1000
"""About what a picture of a thousand by a thousand dots costs (Anthropic, "Vision", "Evaluate image size")."""


def input_tokens(messages: Sequence[ChatMessage]) -> int:
    """Of the messages that a prompt adds; what was said before them is not known here."""
    characters = sum(len(message.text) for message in messages)
    return -(-characters // _CHARACTERS_A_TOKEN) + _IMAGE_TOKENS * sum(len(message.images) for message in messages)
