"""``Idempotency-Key``: the same request twice is one prompt.

The command is stored before it is published, so a repeat publishes that very command again, to that very partition;
its consumers see the same ids and do nothing twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database

MOST_CHARACTERS = 255


class KeyReused(Exception):
    """The key stands for another body."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A command as it is, or was, published."""

    topic: str
    partition: int
    command: bytes


def hash_of(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


async def find(database: Database, tenant_id: UUID, key: str, body_hash: bytes) -> Stored | None:
    """What was stored under ``key``. Raises KeyReused, DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        row = await session.one(
            "SELECT body_hash, topic, partition, command FROM control.idempotency"
            " WHERE tenant_id = :tenant_id AND key = :key",
            tenant_id=tenant_id,
            key=key,
        )
    if row is None:
        return None
    if row["body_hash"] != body_hash:
        raise KeyReused
    return Stored(row["topic"], row["partition"], row["command"])


async def store(database: Database, tenant_id: UUID, key: str, body_hash: bytes, stored: Stored) -> Stored:
    """Store ``stored`` under ``key``, unless a request beside this one was faster: then what that one stored.

    Raises KeyReused, DatabaseUnavailable.
    """
    async with database.tenant(tenant_id) as session:
        inserted = await session.execute(
            "INSERT INTO control.idempotency (tenant_id, key, body_hash, topic, partition, command)"
            " VALUES (:tenant_id, :key, :body_hash, :topic, :partition, :command) ON CONFLICT DO NOTHING",
            tenant_id=tenant_id,
            key=key,
            body_hash=body_hash,
            topic=stored.topic,
            partition=stored.partition,
            command=stored.command,
        )
    if inserted:
        return stored
    faster = await find(database, tenant_id, key, body_hash)
    assert faster is not None, "a conflicting row was there a moment ago, and rows live for two days"
    return faster
