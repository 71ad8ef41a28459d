"""A file under a data key, of any size, in the memory of a few chunks.

A key of its own, derived by HKDF (RFC 5869) from the data key, a random salt and what the file is about. The chunks are
AES-256-GCM under it; a nonce is the chunk's number and whether it is the last one, so that none can be changed, moved,
taken out or added (Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", 2015, STREAM). In front stands a hash of what the file is about, which tells what was sealed for
something else from what was changed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag

from backplane.security.content import CannotRead, DataKey

CHUNK_BYTES = 1024 * 1024
_TAG_BYTES = 16
_SALT_BYTES = 32
_ABOUT_BYTES = 32


def seal_file(key: DataKey, about: bytes, plain: Path, sealed: Path) -> None:
    """Write ``plain`` to ``sealed``, which must not be there; only its owner may read it. Blocks. Raises OSError."""
    salt = os.urandom(_SALT_BYTES)
    cipher = key.of_file(salt, about)
    descriptor = os.open(sealed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with plain.open("rb") as source, open(descriptor, "wb") as target:
        target.write(_hash(about) + salt)
        chunk, number = source.read(CHUNK_BYTES), 0
        while following := source.read(CHUNK_BYTES):
            target.write(cipher.encrypt(_nonce(number, last=False), chunk, None))
            chunk, number = following, number + 1
        target.write(cipher.encrypt(_nonce(number, last=True), chunk, None))


def open_file(key: DataKey, about: bytes, sealed: Path, plain: Path) -> None:
    """Write what ``sealed`` holds to ``plain``, which must not be there; only its owner may read it.

    Blocks. Raises CannotRead, OSError; what stands in ``plain`` then is a beginning at most.
    """
    descriptor = os.open(plain, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with sealed.open("rb") as source, open(descriptor, "wb") as target:
        if source.read(_ABOUT_BYTES) != _hash(about):
            raise CannotRead("a sealed file is about something else")
        cipher = key.of_file(source.read(_SALT_BYTES), about)
        chunk, number, last = source.read(CHUNK_BYTES + _TAG_BYTES), 0, False
        try:
            while not last:
                following = source.read(CHUNK_BYTES + _TAG_BYTES)
                last = not following
                target.write(cipher.decrypt(_nonce(number, last=last), chunk, None))
                chunk, number = following, number + 1
        except (InvalidTag, ValueError):
            raise CannotRead("a sealed file was changed, or another key sealed it") from None


def sealed_bytes(plain_bytes: int) -> int:
    """How large a file of ``plain_bytes`` is once it is sealed."""
    chunks = max(1, -(-plain_bytes // CHUNK_BYTES))
    return _ABOUT_BYTES + _SALT_BYTES + plain_bytes + chunks * _TAG_BYTES


def _hash(about: bytes) -> bytes:
    return hashlib.sha256(about).digest()


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
