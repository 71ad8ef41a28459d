"""What a prompt will use, before anybody has counted it. How far that is off on a sample: docs/how-to/limits.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from backplane.ports.budget import nano_usd
from backplane.settings import Settings
from backplane.settings.pools import KEYED, PoolSettings
from backplane.settings.prices import PriceTable
from command_api import tokenizer
from event_schemas.generation import PromptContent
from event_schemas.limits import Reserved
from event_schemas.payload import Usage

_IMAGE_TOKENS = 1000
"""About what a picture of a thousand by a thousand dots costs (Anthropic, "Vision", "Evaluate image size")."""

_MESSAGE_TOKENS = 4
"""What marks a message's role and its end (OpenAI, "How to count tokens with tiktoken")."""

_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SPACES = b" \t\n\r"
_CONTINUATION = bytes(range(0x80, 0xC0))
_TWO_BYTES = bytes(range(0xC0, 0xE0))
_THREE_BYTES = bytes(range(0xE0, 0xF0))
_ASCII = bytes(range(0x80))

_LETTER, _SPACE, _OTHER_ASCII = 0.235, 0.12, 0.56
_TWO, _THREE, _FOUR = 0.7, 1.1, 2.6
"""Tokens a character, by how many bytes it has in UTF-8: Latin with marks, Cyrillic, Arabic; Chinese, Hindi, Korean;
pictures. The weights are made to be rather too large than too small."""


class Unpriced(Exception):
    """Nobody knows what ``model`` costs."""

    def __init__(self, model: str) -> None:
        super().__init__(f"there is no price of {model!r}")
        self.model = model


def text_tokens(text: str) -> int:
    """Of ``text``, for a vocabulary of a hundred thousand tokens or more."""
    raw = text.encode(errors="replace")
    ascii_ = raw.translate(None, _CONTINUATION + _TWO_BYTES + _THREE_BYTES + bytes(range(0xF0, 0x100)))
    without_letters = ascii_.translate(None, _LETTERS)
    others = len(without_letters.translate(None, _SPACES))
    tokens = (
        (len(ascii_) - len(without_letters)) * _LETTER
        + (len(without_letters) - others) * _SPACE
        + others * _OTHER_ASCII
    )
    if len(ascii_) < len(raw):
        marks = raw.translate(None, _ASCII + _CONTINUATION)
        wide = marks.translate(None, _TWO_BYTES)
        widest = len(wide.translate(None, _THREE_BYTES))
        tokens += (len(marks) - len(wide)) * _TWO + (len(wide) - widest) * _THREE + widest * _FOUR
    return int(tokens) + 1


class Estimate(NamedTuple):
    input_tokens: int
    """Of what the prompt adds to its conversation, for the model that it asks."""
    reserved: Reserved


def input_tokens(content: PromptContent, pool: PoolSettings, model: str) -> int:
    """Of what a prompt adds to its conversation, for ``model`` of ``pool``."""
    texts = [message.text for message in content.messages]
    texts += [
        json.dumps([call.model_dump(mode="json") for call in message.tool_calls])
        for message in content.messages
        if message.tool_calls
    ]
    if content.tools:
        texts.append(json.dumps([tool.model_dump(mode="json") for tool in content.tools]))
    if content.response_format is not None:
        texts.append(content.response_format.model_dump_json())
    counted = (tokenizer.count(pool, model, text) for text in texts)
    tokens = sum(text_tokens(text) if count is None else count for text, count in zip(texts, counted, strict=True))
    images = sum(len(message.images) for message in content.messages)
    return tokens + _MESSAGE_TOKENS * len(content.messages) + _IMAGE_TOKENS * images


def estimated(
    content: PromptContent,
    places: Sequence[tuple[str, str]],
    max_tokens: int | None,
    *,
    said_before: int,
    settings: Settings,
    prices: PriceTable,
    priced: bool,
) -> Estimate:
    """What a prompt is to hold of its limits; ``said_before`` are the tokens of the conversation that it goes on.

    Of all ``places``, (pool, model), that may serve it, the dearest counts; the first one is asked first. Raises
    Unpriced where it matters (``priced``) and one's provider has no price; local engines without a price cost nothing.
    """
    added = [input_tokens(content, settings.pools[pool], model) for pool, model in places]
    tokens, nano = 0, 0
    for (pool_name, model), adds in zip(places, added, strict=True):
        pool = settings.pools[pool_name]
        asked = said_before + adds
        answer = max_tokens or pool.answer_tokens
        of_model = asked + answer
        if pool.context_window is not None:
            of_model = min(of_model, pool.context_window)
        tokens = max(tokens, of_model)
        cost = prices.cost(
            model=pool.name_at_backend(model),
            backend=pool.backend,
            usage=Usage(input_tokens=min(asked, of_model), output_tokens=min(answer, of_model), source="estimated"),
            at=datetime.now(UTC),
        )
        if cost is None and priced and pool.backend in KEYED:
            raise Unpriced(model)
        nano = max(nano, nano_usd(cost or Decimal(0)))
    return Estimate(added[0], Reserved(tokens=tokens, nano_usd=nano))
