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


def next_hash(previous: bytes, envelope: bytes) -> bytes:
    """The hash of the line that holds ``envelope`` and follows one with the hash ``previous``.

    What is sealed in the envelope does not count, only the commitment to it. Raises ValueError where it is no JSON.
    """
    return hashlib.sha256(previous + canonical(envelope, committed=True)).digest()
