"""Batches: each change is a command with an event, decided in one transaction. Their lines are kept until each has
become a prompt; command_api/batch_pump.py sees to that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from backplane.ports.database import Database, DatabaseUnavailable, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from backplane.security.principal import Principal
from command_api.batch_file import BatchFile, FileLine
from command_api.content_keys import ContentKeys
from command_api.conversations import ContentNotKept, NoSuch, decided
from event_schemas.batches import (
    BatchCancelled,
    BatchContent,
    BatchDeleted,
    BatchSubmitted,
    CancelBatch,
    DeleteBatch,
    SubmitBatch,
)

WINDOW = timedelta(hours=24)
"""From its submission until no line of it is begun any more."""

_AT_ONCE = 500


class NotEnded(Exception):
    """Lines of it run, or wait to."""


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    id: UUID
    event_id: UUID
    total: int
    expires_at: datetime


class Batches:
    """Everything here raises DatabaseUnavailable, and what data keys raise."""

    def __init__(self, database: Database, keys: ContentKeys) -> None:
        self._database = database
        self._keys = keys

    async def submit(
        self, principal: Principal, file: BatchFile, chunks: AsyncIterable[bytes], metadata: dict[str, str]
    ) -> SubmittedBatch:
        """Keep the file as it comes. When this returns it is durable; where it raises, nothing of it is kept.

        Raises UnusableFile; ContentNotKept, since answers would be gone before anybody has them.
        """
        tenant_id, batch_id = principal.tenant_id, new_id()
        new = await self._keys.new(tenant_id, batch_id, batch_id, principal.user_id)
        async with self._database.tenant(tenant_id) as session:
            if not (await self._keys.add_within(session, new)).keeps_content:
                raise ContentNotKept
            await session.execute(
                "INSERT INTO control.batches (batch_id, tenant_id, user_id, key_id)"
                " VALUES (:id, :tenant_id, :user_id, :key_id)",
                id=batch_id,
                tenant_id=tenant_id,
                user_id=principal.user_id,
                key_id=principal.key_id,
            )
        try:
            waiting: list[FileLine] = []
            async for chunk in chunks:
                waiting += file.feed(chunk)
                if len(waiting) >= _AT_ONCE:
                    await self._keep(tenant_id, batch_id, new.key, waiting)
                    waiting = []
            await self._keep(tenant_id, batch_id, new.key, waiting + file.end())
            return await self._submitted(principal, batch_id, new.key, file.total, metadata)
        except BaseException:
            await asyncio.shield(self._discard(tenant_id, batch_id))
            raise

    async def cancel(self, principal: Principal, batch_id: UUID) -> UUID | None:
        """Begin no line any more, and stop what runs. Returns the event's id; None where it is over already.

        Raises NoSuch.
        """
        async with self._database.tenant(principal.tenant_id) as session:
            await _own(session, principal, batch_id)
            changed = await session.execute(
                "UPDATE control.batches SET cancelled_at = now(), next_try_at = now()"
                " WHERE batch_id = :id AND ended_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL",
                id=batch_id,
            )
            if not changed:
                return None
            return await decided(session, principal, CancelBatch(batch_id=batch_id), BatchCancelled(batch_id=batch_id))

    async def delete(self, principal: Principal, batch_id: UUID) -> tuple[UUID, list[UUID]]:
        """Delete what it and its lines were sealed by. Returns the event's id, and its lines' conversations.

        Raises NoSuch, NotEnded.
        """
        async with self._database.tenant(principal.tenant_id) as session:
            if (await _own(session, principal, batch_id))["ended_at"] is None:
                raise NotEnded
            # It ended once the read models had each of its lines.
            rows = await session.all(
                "SELECT conversation_id FROM read_models.generations WHERE batch_id = :id", id=batch_id
            )
            conversations = [row["conversation_id"] for row in rows]
            await session.execute(
                "DELETE FROM control.data_keys WHERE conversation_id = ANY(CAST(:ids AS uuid[]))",
                ids=[batch_id, *conversations],
            )
            await session.execute("DELETE FROM control.batches WHERE batch_id = :id", id=batch_id)
            event = BatchDeleted(batch_id=batch_id)
            return await decided(session, principal, DeleteBatch(batch_id=batch_id), event), conversations

    async def _keep(self, tenant_id: UUID, batch_id: UUID, key: DataKey, lines: Sequence[FileLine]) -> None:
        async with self._database.tenant(tenant_id) as session:
            await session.execute(
                "INSERT INTO control.batch_lines (tenant_id, batch_id, line, sealed)"
                " SELECT :tenant_id, :batch_id, line, CAST(written AS jsonb) FROM"
                " unnest(CAST(:lines AS integer[]), CAST(:sealed AS text[])) AS l(line, written)",
                tenant_id=tenant_id,
                batch_id=batch_id,
                lines=[line.number for line in lines],
                sealed=[key.seal(line.content).model_dump_json() for line in lines],
            )

    async def _submitted(
        self, principal: Principal, batch_id: UUID, key: DataKey, total: int, metadata: dict[str, str]
    ) -> SubmittedBatch:
        expires_at = datetime.now(UTC) + WINDOW
        command = SubmitBatch(
            batch_id=batch_id,
            user_id=principal.user_id,
            key_id=principal.key_id,
            total=total,
            expires_at=expires_at,
            content=key.seal(BatchContent(metadata=metadata)),
        )
        async with self._database.tenant(principal.tenant_id) as session:
            kept = await session.execute(
                "UPDATE control.batches SET submitted_at = now(), total = :total, expires_at = :expires_at"
                " WHERE batch_id = :id",
                id=batch_id,
                total=total,
                expires_at=expires_at,
            )
            if not kept:
                raise NoSuch("batch")  # it took a day to come
            event_id = await decided(session, principal, command, BatchSubmitted(**dict(command)))
        return SubmittedBatch(batch_id, event_id, total, expires_at)

    async def _discard(self, tenant_id: UUID, batch_id: UUID) -> None:
        with suppress(DatabaseUnavailable):  # then it is forgotten a day later
            async with self._database.tenant(tenant_id) as session:
                await session.execute(
                    "DELETE FROM control.data_keys WHERE conversation_id = :id AND EXISTS"
                    " (SELECT FROM control.batches WHERE batch_id = :id AND submitted_at IS NULL)",
                    id=batch_id,
                )
                discarded = await session.execute(
                    "DELETE FROM control.batches WHERE batch_id = :id AND submitted_at IS NULL", id=batch_id
                )
                if discarded:
                    await session.execute("DELETE FROM control.batch_lines WHERE batch_id = :id", id=batch_id)


async def _own(session: TenantSession, principal: Principal, batch_id: UUID) -> Row:
    row = await session.one(
        "SELECT ended_at FROM control.batches WHERE batch_id = :id AND submitted_at IS NOT NULL AND (:sees_all"
        " OR user_id = CAST(:user_id AS uuid)"
        " OR (user_id IS NULL AND CAST(:user_id AS uuid) IS NULL AND key_id = :key_id)) FOR UPDATE",
        id=batch_id,
        sees_all=principal.may("conversations.all"),
        user_id=principal.user_id,
        key_id=principal.key_id,
    )
    if row is None:
        raise NoSuch("batch")
    return row
