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


UPCASTERS: dict[tuple[str, int], Upcaster] = {
    # Tools, images and reasoning: messages of parts, tool calls, deltas that are not text, more ways to finish.
    ("prompt.submit", 1): _only_wider,
    ("tokens.emitted", 1): _only_wider,
    ("attempt.lost", 1): _only_wider,
    ("generation.completed", 1): _only_wider,
    ("generation.failed", 1): _only_wider,
    ("generation.cancelled", 1): _only_wider,
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
