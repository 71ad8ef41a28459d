"""``Idempotency-Key``: the same request twice is one prompt.

The command is stored before it is published, so a repeat publishes that very command again, to that very partition;
its consumers see the same ids and do nothing twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database, TenantSession

MOST_CHARACTERS = 255


class KeyReused(Exception):
    """The key stands for another body."""


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


def hash_of(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


async def find(database: Database, key: Key) -> Stored | None:
    """What was stored under ``key``. Raises KeyReused, DatabaseUnavailable."""
    async with database.tenant(key.tenant_id) as session:
        return await _find(session, key)


async def store(database: Database, key: Key, stored: Stored) -> Stored:
    """Store ``stored`` under ``key``, unless something was stored before, or by a request beside this one: then that.

    Raises KeyReused, DatabaseUnavailable.
    """
    async with database.tenant(key.tenant_id) as session:
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
            return stored
        first = await _find(session, key)
    assert first is not None, "a conflicting row was there a moment ago, and rows live for two days"
    return first


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
