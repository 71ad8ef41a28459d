"""Old payloads become new ones here, one version step each.

``UPCASTERS[("thing.happened", 1)]`` takes the raw data of version 1 and returns that of version 2. An upcaster changes
raw JSON, never model objects, so that it goes on working when the classes move on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Raw = dict[str, Any]
Upcaster = Callable[[Raw], Raw]


def _only_wider(data: Raw) -> Raw:
    """The newer version allows more; what the older one said means the same in it."""
    return data


def _plain(data: Raw) -> Raw:
    """What was written before content was encrypted."""
    return data | {"content": {"plain": data["content"]}}


def _plain_prompt(data: Raw) -> Raw:
    messages = data["content"]["messages"]
    texts = [_text(message) for message in messages]
    first = next((text for text, message in zip(texts, messages, strict=True) if message["role"] == "user"), "")
    title = " ".join(first.split())[:60].rstrip()
    begins = data["parent_message_id"] is None and bool(title)
    parameters = {**data["parameters"]}
    content = data["content"] | {"stop": parameters.pop("stop", [])}
    return data | {
        "content": {"plain": content},
        "parameters": parameters,
        "roles": [message["role"] for message in messages],
        "input_tokens": -(-sum(map(len, texts)) // 4),
        "title": {"plain": {"title": title}} if begins else None,
    }


def _text(message: Raw) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _plain_tokens(data: Raw) -> Raw:
    return _plain(data) | {"count": len(data["content"]["deltas"])}


def _plain_answer(data: Raw) -> Raw:
    return _plain(data) | {"deltas": len(data["content"]["delta_lengths"])}


UPCASTERS: dict[tuple[str, int], Upcaster] = {
    # Tools, images and reasoning: messages of parts, tool calls, deltas that are not text, more ways to finish.
    ("prompt.submit", 1): _only_wider,
    ("tokens.emitted", 1): _only_wider,
    ("attempt.lost", 1): _only_wider,
    ("generation.completed", 1): _only_wider,
    ("generation.failed", 1): _only_wider,
    ("generation.cancelled", 1): _only_wider,
    # Content is encrypted, and what may be known without it stands beside it.
    ("prompt.submit", 2): _plain_prompt,
    ("tokens.emitted", 2): _plain_tokens,
    ("generation.completed", 2): _plain_answer,
    ("generation.failed", 2): _plain_answer,
    ("generation.cancelled", 2): _plain_answer,
    ("conversation.rename", 1): _plain,
    ("conversation.renamed", 1): _plain,
    # More roles, and what a key may ask.
    ("user.invite", 1): _only_wider,
    ("user.invited", 1): _only_wider,
    ("key.issue", 1): _only_wider,
    ("key.issued", 1): _only_wider,
}


def upcast(base: str, version: int, newest: int, data: Raw, steps: dict[tuple[str, int], Upcaster] = UPCASTERS) -> Raw:
    """Raise ``data`` of ``base`` from ``version`` to ``newest``, one step at a time.

    Raises:
        LookupError: a step is missing; published versions must decode for ever, so this is a bug of the release.
    """
    for step in range(version, newest):
        try:
            data = steps[base, step](data)
        except KeyError:
            raise LookupError(f"no upcaster from {base}.v{step} to v{step + 1}") from None
    return data
