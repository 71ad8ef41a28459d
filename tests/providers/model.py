"""The models that the server has."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Model:
    """What makes requests to a model right or wrong."""

    context: int = 128_000
    """Tokens of its window, the prompt's and the answer's."""
    most_output: int = 64_000
    """The largest ``max_tokens`` of Anthropic's API."""
    reasoning: bool = False
    """One of OpenAI's reasoning models, which refuse ``max_tokens`` and sampling parameters."""
    prefill: bool = True
    """A conversation may end with the beginning of the answer (Anthropic)."""
    system_messages: bool = False
    """Messages of the role ``system`` may stand in a conversation, though not at its beginning (Anthropic)."""
    latest_on_bedrock: bool = True
    """Bedrock serves Anthropic's API version 2026-10-21 for it, which it does from Claude 4.7 on."""


def default_models() -> dict[str, Model]:
    """Names as each API has them."""
    claude = Model(context=200_000)
    opus = Model(context=1_000_000, most_output=128_000, prefill=False, system_messages=True)
    return {
        "gpt-4o-mini": Model(),
        "o4-mini": Model(context=200_000, reasoning=True),
        "claude-haiku-4-5": claude,
        "claude-haiku-4-5@20251001": claude,
        "anthropic.claude-haiku-4-5-20251001-v1:0": replace(claude, latest_on_bedrock=False),
        "claude-opus-4-8": opus,
        "anthropic.claude-opus-4-8": opus,
    }
