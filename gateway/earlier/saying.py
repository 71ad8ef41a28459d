"""What was said in a conversation, as clients show it: who, and the text of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backplane.ports.database import Row


def said_in(messages: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """Role and text of each that can be read, and is neither a tool's nor empty."""
    for one in messages:
        content = one["content"]
        if one["role"] == "tool" or content is None:
            continue
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        if text:
            yield one["role"], text
