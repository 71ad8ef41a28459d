"""Tokens of what is said, where no vocabulary is at hand. How far that is off on a sample: docs/how-to/limits.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from event_schemas.chat import ChatMessage, ResponseFormat, Tool

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

TOKENS_A_LETTER, _SPACE, _OTHER_ASCII = 0.235, 0.12, 0.56
_TWO, _THREE, _FOUR = 0.7, 1.1, 2.6
"""Tokens a character, by how many bytes it has in UTF-8: Latin with marks, Cyrillic, Arabic; Chinese, Hindi, Korean;
pictures. The weights are made to be rather too large than too small."""


def text_tokens(text: str) -> int:
    """Of ``text``, for a vocabulary of a hundred thousand tokens or more."""
    raw = text.encode(errors="replace")
    ascii_ = raw.translate(None, _CONTINUATION + _TWO_BYTES + _THREE_BYTES + bytes(range(0xF0, 0x100)))
    without_letters = ascii_.translate(None, _LETTERS)
    others = len(without_letters.translate(None, _SPACES))
    tokens = (
        (len(ascii_) - len(without_letters)) * TOKENS_A_LETTER
        + (len(without_letters) - others) * _SPACE
        + others * _OTHER_ASCII
    )
    if len(ascii_) < len(raw):
        marks = raw.translate(None, _ASCII + _CONTINUATION)
        wide = marks.translate(None, _TWO_BYTES)
        widest = len(wide.translate(None, _THREE_BYTES))
        tokens += (len(marks) - len(wide)) * _TWO + (len(wide) - widest) * _THREE + widest * _FOUR
    return int(tokens) + 1


def input_tokens(
    messages: Sequence[ChatMessage],
    tools: Sequence[Tool] = (),
    response_format: ResponseFormat | None = None,
    *,
    count: Callable[[str], int] = text_tokens,
) -> int:
    """Of all that a model is given to read; ``count`` says how many tokens a text has."""
    texts = [message.text for message in messages]
    texts += [
        json.dumps([call.model_dump(mode="json") for call in message.tool_calls])
        for message in messages
        if message.tool_calls
    ]
    if tools:
        texts.append(json.dumps([tool.model_dump(mode="json") for tool in tools]))
    if response_format is not None:
        texts.append(response_format.model_dump_json())
    images = sum(len(message.images) for message in messages)
    return sum(map(count, texts)) + _MESSAGE_TOKENS * len(messages) + _IMAGE_TOKENS * images
