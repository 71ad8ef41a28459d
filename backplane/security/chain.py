"""The hash chain of a tenant's record: each line's hash is made of the hash before it and of what the line says."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from backplane.security.canonical import canonical

GENESIS = bytes(32)
"""The hash that stands before a tenant's first line."""


class Head(NamedTuple):
    """A line of a tenant's record by its place and hash; sequence 0 where there is none yet."""

    sequence: int
    hash: bytes


BEGINNING = Head(0, GENESIS)


class Broken(ValueError):
    """A line that does not follow from the one before it. The message says what is wrong with line ``sequence``."""

    def __init__(self, sequence: int, what: str) -> None:
        super().__init__(what)
        self.sequence = sequence


def next_hash(previous: bytes, envelope: bytes) -> bytes:
    """The hash of the line that holds ``envelope`` and follows one with the hash ``previous``.

    What is sealed in the envelope does not count, only the commitment to it. Raises ValueError where it is no JSON.
    """
    return hashlib.sha256(previous + canonical(envelope, committed=True)).digest()


def follow(head: Head, sequence: int, hash: bytes, envelope: bytes) -> Head:
    """The head after the line that is found to follow ``head``. Raises Broken where it does not."""
    expected = head.sequence + 1
    if sequence != expected:
        raise Broken(expected, "is missing")
    try:
        follows = next_hash(head.hash, envelope) == hash
    except ValueError as error:
        raise Broken(expected, f"cannot be read: {error}") from None
    if not follows:
        raise Broken(expected, "does not follow from the line before: its envelope or a hash was changed")
    return Head(sequence, hash)
