"""What clients of the earlier systems are shown of a conversation."""

from __future__ import annotations

from backplane.ports.database import Row
from gateway.earlier.saying import said_in


def test_what_has_no_words_is_not_shown() -> None:
    picture = {"type": "image", "url": "https://example.com/a.png"}
    messages: list[Row] = [
        {"role": "user", "content": [{"type": "text", "text": "Who "}, picture, {"type": "text", "text": "is it?"}]},
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "Ada"},
        {"role": "user", "content": [picture]},
        {"role": "user", "content": None},
        {"role": "assistant", "content": "Ada."},
    ]
    assert list(said_in(messages)) == [("user", "Who is it?"), ("assistant", "Ada.")]
