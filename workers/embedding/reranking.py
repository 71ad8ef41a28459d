"""What reads a question beside each passage, which is slower than comparing vectors and tells more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Reranker(Protocol):
    async def start(self) -> None:
        """Load what there is to load. Raises EmbeddingError."""

    async def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """One for each passage, in order; more is better, and only their order means anything. Raises
        EmbeddingError."""

    async def close(self) -> None:
        """Release the model."""
