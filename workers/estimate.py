"""Tokens where nobody has counted them."""

from __future__ import annotations

from event_schemas.generation import SubmitPrompt

_CHARACTERS_A_TOKEN = 4
"""Rule of thumb for English text (OpenAI, "What are tokens and how to count them?")."""

_IMAGE_TOKENS = 1000
"""About what a picture of a thousand by a thousand dots costs (Anthropic, "Vision", "Evaluate image size")."""

_ANSWER_TOKENS = 512
"""Of an answer whose length the prompt leaves open."""


def input_tokens(prompt: SubmitPrompt) -> int:
    """Of the messages that the prompt adds; what was said before them is not known here."""
    messages = prompt.content.messages
    characters = sum(len(message.text) for message in messages)
    return -(-characters // _CHARACTERS_A_TOKEN) + _IMAGE_TOKENS * sum(len(message.images) for message in messages)


def tokens(prompt: SubmitPrompt) -> int:
    """Of the prompt and the longest answer that it allows."""
    return input_tokens(prompt) + (prompt.parameters.max_tokens or _ANSWER_TOKENS)
