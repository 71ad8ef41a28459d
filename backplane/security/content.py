"""Content under a data key of its conversation: sealed before it is published, opened where it is used.

AES-256-GCM (NIST SP 800-38D) with a random nonce. Beside it stands a commitment, HMAC-SHA-256 (RFC 2104), which tells
nothing to who lacks the key, however short the content. Both keys are derived from the data key by HKDF (RFC 5869), as
is the id that stands in front: what was sealed by an earlier key of the conversation is told from what was changed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import b64decode, b64encode
from typing import TypeVar
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backplane.ports.key_wrapping import KeyWrapping
from event_schemas.payload import Content, Plain, Sealed, Written

C = TypeVar("C", bound=Content)

_KEY_BYTES = 32
_ID_BYTES = 8
_NONCE_BYTES = 12
_BODY_AT = _ID_BYTES + _NONCE_BYTES
_NO_SALT = bytes(32)
_OF_FILE = b"/file"


class ContentErased(LookupError):
    """The data key that this was sealed by is gone, and with it what was written."""


class CannotRead(ValueError):
    """Sealed content that its own data key does not open: it was changed."""


class DataKey:
    """The key of one conversation of one tenant, or of one prompt in it."""

    def __init__(self, raw: bytes, belongs_to: str) -> None:
        extracted = hmac.digest(_NO_SALT, raw, hashlib.sha256)
        self._cipher = AESGCM(hmac.digest(extracted, b"parley seal\x01", hashlib.sha256))
        self._commits = hmac.digest(extracted, b"parley commit\x01", hashlib.sha256)
        self._id = hmac.digest(extracted, b"parley id\x01", hashlib.sha256)[:_ID_BYTES]
        self._of_files = hmac.digest(extracted, b"parley files\x01", hashlib.sha256)
        self._belongs_to = belongs_to.encode()

    def __repr__(self) -> str:
        return "DataKey(…)"

    @property
    def id(self) -> str:
        """Tells it from the keys that its conversation had before; says nothing of it."""
        return self._id.hex()

    def seal(self, content: Content) -> Sealed:
        """``content``, to be published."""
        plain = content.__pydantic_serializer__.to_json(content)
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed.model_construct(
            commitment=hmac.new(self._commits, plain, hashlib.sha256).hexdigest(),
            sealed=b64encode(self._id + nonce + self._cipher.encrypt(nonce, plain, self._belongs_to)).decode(),
        )

    def seal_bytes(self, plain: bytes) -> bytes:
        """A file, to be kept. It is in no event, so nothing commits to it."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, self._belongs_to + _OF_FILE)

    def open_bytes(self, sealed: bytes) -> bytes:
        """Raises CannotRead."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._belongs_to + _OF_FILE)
        except (InvalidTag, ValueError):
            raise CannotRead("a sealed file was changed, or another key sealed it") from None

    def of_file(self, salt: bytes, about: bytes) -> AESGCM:
        """The cipher of one file in its place, which ``salt``, a random one, tells from all others."""
        derived = hmac.digest(salt, self._of_files, hashlib.sha256)
        told = b"parley file\x00" + hashlib.sha256(self._belongs_to).digest() + hashlib.sha256(about).digest()
        return AESGCM(hmac.digest(derived, told + b"\x01", hashlib.sha256))

    def plain(self, sealed: Sealed) -> bytes:
        """The content's JSON. Raises ContentErased where another key sealed it, CannotRead."""
        try:
            raw = b64decode(sealed.sealed, validate=True)
            if raw[:_ID_BYTES] != self._id:
                raise ContentErased
            plain = self._cipher.decrypt(raw[_ID_BYTES:_BODY_AT], raw[_BODY_AT:], self._belongs_to)
        except (InvalidTag, ValueError):
            raise CannotRead("sealed content was changed") from None
        if not hmac.compare_digest(hmac.new(self._commits, plain, hashlib.sha256).hexdigest(), sealed.commitment):
            raise CannotRead("sealed content is not what the event log commits to")
        return plain


def opened(written: Written, key: DataKey | None, kind: type[C]) -> C:
    """What was written; ``key`` is None where the conversation has none. Raises ContentErased, CannotRead."""
    if isinstance(written, Plain):
        return kind.model_validate(written.plain)
    if key is None:
        raise ContentErased
    return kind.model_validate_json(key.plain(written))


def opened_row(written: dict[str, object], key: DataKey | None) -> dict[str, object]:
    """As ``opened``, from the JSON of a read model to the content's JSON."""
    if "plain" in written:
        plain = written["plain"]
        assert isinstance(plain, dict)
        return plain
    if key is None:
        raise ContentErased
    content: dict[str, object] = orjson.loads(key.plain(Sealed.model_validate(written)))
    return content


class DataKeys:
    """Makes data keys, and opens stored ones. Raises what ``wrapping`` raises."""

    def __init__(self, wrapping: KeyWrapping) -> None:
        self._wrapping = wrapping

    async def make(self, tenant_id: UUID, conversation_id: UUID) -> tuple[DataKey, bytes]:
        """A new key, and what is to be stored of it."""
        raw, belongs_to = os.urandom(_KEY_BYTES), _place(tenant_id, conversation_id)
        return DataKey(raw, belongs_to), await self._wrapping.wrap(raw, belongs_to)

    async def unwrap(self, wrapped: bytes, tenant_id: UUID, conversation_id: UUID) -> DataKey:
        belongs_to = _place(tenant_id, conversation_id)
        return DataKey(await self._wrapping.unwrap(wrapped, belongs_to), belongs_to)


def _place(tenant_id: UUID, conversation_id: UUID) -> str:
    return f"conversation/{tenant_id}/{conversation_id}"
