"""What turns texts into vectors that are close where their meanings are.

EmbeddingError            ``reason`` is stable, the message is for people and quotes no text
├── EmbeddingRefused      these texts, or this set-up, can never be embedded
└── EmbedderUnavailable   another try may succeed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

Vector: TypeAlias = Sequence[float]
"""Of length one, so that a cosine is a dot product."""

Purpose: TypeAlias = Literal["passage", "question"]
"""Some models were taught to tell what is searched from what it is searched by."""


class EmbeddingError(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EmbeddingRefused(EmbeddingError):
    """For example ``embedder_missing``."""


class EmbedderUnavailable(EmbeddingError):
    """For example ``embedder_unreachable``."""


class Embedder(Protocol):
    @property
    def identity(self) -> str:
        """Which vectors can be compared: those of one identity, such as ``all-MiniLM-L6-v2``."""

    @property
    def window(self) -> int | None:
        """Tokens of a text beyond which it is cut, as `lengths` counts them; None: longer ones are refused."""

    async def start(self) -> None:
        """Load what there is to load; called once, before anything else. Raises EmbeddingError."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as this model counts them, without those that it adds itself. Blocks."""

    async def embed(self, texts: Sequence[str], purpose: Purpose) -> list[Vector]:
        """One vector for each text, in order, all of one number of dimensions; what is over the window is cut.
        Raises EmbeddingError."""

    async def close(self) -> None:
        """Release the model."""
