"""What keeps data keys: the holder of a master key, which may be this process or a key management service."""

from __future__ import annotations

from typing import Protocol


class WrappingUnavailable(Exception):
    """The holder of the master key does not answer. Nothing can be read or written until it does."""


class WrappingRefused(WrappingUnavailable):
    """It answers, and will not serve us: a setting of ours, or of its, is wrong. The message names which."""


class CannotUnwrap(ValueError):
    """A wrapped key cannot be opened. The message says why, names no key, and says what to do."""


class KeyWrapping(Protocol):
    async def wrap(self, key: bytes, belongs_to: str) -> bytes:
        """``key``, to be stored; it unwraps with the same ``belongs_to`` only. Raises WrappingUnavailable."""

    async def unwrap(self, wrapped: bytes, belongs_to: str) -> bytes:
        """What was wrapped. Raises CannotUnwrap, WrappingUnavailable."""
