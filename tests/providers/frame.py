"""One event of a streamed answer, and how it is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tests.providers.answer import Piece


@dataclass(frozen=True)
class Frame:
    """One event."""

    part: Literal["framing", "token", "closing"]
    """A ``token`` carries a piece of the answer, ``closing`` ends it, and all else is ``framing``."""
    data: dict[str, Any] | str
    """JSON, or text as it is."""
    piece: Piece | None = None
    reported: Any = None
    """The usage object in it."""


Encode = Callable[[Frame], bytes]


def compact(data: Any) -> str:
    """JSON without spaces, characters as they are."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def data_only(frame: Frame) -> bytes:
    """A server-sent event without a name, as OpenAI writes them."""
    text = frame.data if isinstance(frame.data, str) else compact(frame.data)
    return f"data: {text}\n\n".encode()


def named(frame: Frame) -> bytes:
    """A server-sent event with the name of its type, as Anthropic writes them."""
    assert isinstance(frame.data, dict)
    return f"event: {frame.data['type']}\ndata: {compact(frame.data)}\n\n".encode()
