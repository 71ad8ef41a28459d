"""``Idempotency-Key``: the same request twice is one prompt.

The command is stored before it is published, so a repeat publishes that very command again, to that very partition;
its consumers see the same ids and do nothing twice.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database, TenantSession

MOST_CHARACTERS = 255


class KeyReused(Exception):
    """The key stands for another body."""


class StoredBefore(Exception):
    """The key stands for this body, and for the command that was ``stored`` first."""

    def __init__(self, stored: Stored) -> None:
        super().__init__("the key was used before")
        self.stored = stored


@dataclass(frozen=True, slots=True)
class Stored:
    """A command as it is, or was, published."""

    topic: str
    partition: int
    command: bytes


@dataclass(frozen=True, slots=True)
class Key:
    """A tenant's key, and what it stands for."""

    tenant_id: UUID
    text: str
    body_hash: bytes


class BodyHash:
    """Tells bodies apart. Keyed by the installation's pepper, so that a short one cannot be guessed from its hash."""

    def __init__(self, pepper: str) -> None:
        self._key = hmac.digest(pepper.encode(), b"parley idempotency\x01", hashlib.sha256)

    def __call__(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, hashlib.sha256)


async def find(database: Database, key: Key) -> Stored | None:
    """What was stored under ``key``. Raises KeyReused, DatabaseUnavailable."""
    async with database.tenant(key.tenant_id) as session:
        return await _find(session, key)


async def store(session: TenantSession, key: Key, stored: Stored) -> None:
    """Store ``stored`` under ``key``, as a part of a transaction.

    Raises StoredBefore where something was stored before, or by a request beside this one; KeyReused.
    """
    inserted = await session.execute(
        "INSERT INTO control.idempotency (tenant_id, key, body_hash, topic, partition, command)"
        " VALUES (:tenant_id, :key, :body_hash, :topic, :partition, :command) ON CONFLICT DO NOTHING",
        tenant_id=key.tenant_id,
        key=key.text,
        body_hash=key.body_hash,
        topic=stored.topic,
        partition=stored.partition,
        command=stored.command,
    )
    if inserted:
        return
    first = await _find(session, key)
    assert first is not None, "a conflicting row was there a moment ago, and rows live for two days"
    raise StoredBefore(first)


async def _find(session: TenantSession, key: Key) -> Stored | None:
    row = await session.one(
        "SELECT body_hash, topic, partition, command FROM control.idempotency"
        " WHERE tenant_id = :tenant_id AND key = :key",
        tenant_id=key.tenant_id,
        key=key.text,
    )
    if row is None:
        return None
    if row["body_hash"] != key.body_hash:
        raise KeyReused
    return Stored(row["topic"], row["partition"], row["command"])
