"""Checkpoints: the last line of a tenant's record at some moment, signed. Who has one can prove what stood there.

Ed25519 (RFC 8032) over the canonical form of everything but the signature.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from backplane.security.canonical import canonical
from backplane.security.chain import Broken, Head

Kind = Literal["checkpoint", "pruned"]


class Untrusted(ValueError):
    """A checkpoint that proves nothing. The message says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is signed of a tenant's record. Bytes are hexadecimal, as they stand in JSON."""

    kind: Kind
    """``pruned``: all up to this line, inclusive, was deleted on purpose, and the rest follows from its hash."""
    tenant_id: UUID
    sequence: int
    hash: str
    time: datetime
    key: str
    """The public key that it is signed with."""
    signature: str = ""

    @classmethod
    def parse(cls, given: object) -> Checkpoint:
        """From JSON. Raises ValueError where it is none; whether it is true, ``check`` says."""
        match given:
            case {
                "kind": "checkpoint" | "pruned" as kind,
                "tenant_id": str(tenant_id),
                "sequence": int(sequence),
                "hash": str(hashed),
                "time": str(time),
                "key": str(key),
                "signature": str(signature),
            }:
                at = datetime.fromisoformat(time)
                made = cls(kind, UUID(tenant_id), sequence, hashed, at, key, signature)
                if made.json() == given:
                    return made
        raise ValueError("not a checkpoint")

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Checkpoint:
        """From its row."""
        return cls(
            row["kind"],
            row["tenant_id"],
            row["sequence"],
            row["hash"].hex(),
            row["time"],
            row["key"].hex(),
            row["signature"].hex(),
        )

    @property
    def head(self) -> Head:
        return Head(self.sequence, bytes.fromhex(self.hash))

    def json(self) -> dict[str, Any]:
        """As it is shown and published."""
        time = self.time.astimezone(UTC).isoformat(timespec="microseconds")
        return asdict(self) | {"tenant_id": str(self.tenant_id), "time": time}

    def signed_bytes(self) -> bytes:
        said = self.json()
        del said["signature"]
        return canonical(orjson.dumps(said))

    def check(self, trusted: Collection[str]) -> None:
        """That one of these public keys signed it just so. Raises Untrusted."""
        if self.key not in trusted:
            raise Untrusted(f"is signed with the key {self.key}, which is not one of those to be trusted")
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.key)).verify(
                bytes.fromhex(self.signature), self.signed_bytes()
            )
        except (InvalidSignature, ValueError):
            raise Untrusted("was changed: its signature is not that of its key") from None


def vouch(signed: Checkpoint, head: Head, trusted: Collection[str]) -> None:
    """That ``signed`` is true, and says what stands at ``head``, which has its sequence. Raises Broken."""
    when = signed.time.isoformat(timespec="seconds")
    try:
        signed.check(trusted)
    except Untrusted as error:
        raise Broken(head.sequence, f"has a checkpoint, of {when}, that {error}") from None
    if signed.head != head:
        raise Broken(
            head.sequence,
            f"is not the one that the checkpoint of {when} signs: this line, or lines before it, were changed and"
            " chained anew",
        )


class SigningKey:
    """``hexadecimal`` are its 256 bits, as the setting ``security.signing_key`` has them."""

    def __init__(self, hexadecimal: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(hexadecimal))
        self.public = self._key.public_key().public_bytes_raw().hex()
        """The key that checkpoints are verified with: 64 hexadecimal digits."""

    def __repr__(self) -> str:
        return f"SigningKey({self.public})"

    def sign(self, tenant_id: UUID, head: Head, *, kind: Kind = "checkpoint") -> Checkpoint:
        """That ``head`` stands in the tenant's record now."""
        said = Checkpoint(kind, tenant_id, head.sequence, head.hash.hex(), datetime.now(UTC), self.public)
        return replace(said, signature=self._key.sign(said.signed_bytes()).hex())
