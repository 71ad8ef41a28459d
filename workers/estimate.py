"""Tokens where nobody has counted them."""

from __future__ import annotations

from event_schemas.generation import SubmitPrompt

_ANSWER_TOKENS = 512
"""Of an answer whose length the prompt leaves open."""


def tokens(prompt: SubmitPrompt) -> int:
    """Of the prompt and the longest answer that it allows."""
    return prompt.input_tokens + (prompt.parameters.max_tokens or _ANSWER_TOKENS)
