"""What was written in conversations, erased: their data keys are deleted, and the log says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from backplane.ports.database import Database, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from command_api import outbox
from command_api.conversations import SOURCE, NoSuch, conversation_of, running_in
from event_schemas.envelope import Envelope
from event_schemas.erasure import ContentErased, EraseContent, EraseReason, EraseUser, UserErased
from event_schemas.generation import CancelGeneration
from event_schemas.payload import Payload

RETENTION = "retention"
"""The actor of what is erased since its tenant keeps content for so many days only."""

_ONE_AT_A_TIME = 0x65726173757265  # "erasure", as an advisory lock
_AT_ONCE = 200
_STREAMS_STAND_HOURS = 24
"""Longer than any token stream is kept after its end."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What was decided. The event that came last has ``event_id``; ``cancels`` are of what still runs."""

    event_id: UUID
    conversations: list[UUID]
    cancels: list[CancelGeneration]


async def erase_conversation(database: Database, principal: Principal, conversation_id: UUID) -> Erased:
    """Decide that what was written in a conversation is gone; it stays, and may go on.

    Raises NoSuch, DatabaseUnavailable.
    """
    async with database.tenant(principal.tenant_id) as session:
        await conversation_of(session, principal, conversation_id)
        await _delete_keys(session, [conversation_id])
        cancels = await running_in(session, [conversation_id])
        event_id = await _erased(session, conversation_id, "asked", principal.actor)
    return Erased(event_id, [conversation_id], cancels)


async def erase_user(database: Database, principal: Principal, user_id: UUID) -> Erased:
    """Decide the same of all conversations of a user. Raises NoSuch, DatabaseUnavailable."""
    async with database.tenant(principal.tenant_id) as session:
        if await session.one("SELECT 1 FROM control.users WHERE user_id = :id", id=user_id) is None:
            raise NoSuch("user")
        rows = await session.all(
            "DELETE FROM control.data_keys WHERE user_id = :id RETURNING conversation_id", id=user_id
        )
        conversations = sorted({row["conversation_id"] for row in rows})
        cancels = await running_in(session, conversations)
        for conversation_id in conversations:
            await _erased(session, conversation_id, "user_erased", principal.actor)
        event_id = await _decided(
            session,
            EraseUser(user_id=user_id),
            UserErased(user_id=user_id, conversations=len(conversations)),
            principal.actor,
        )
    return Erased(event_id, conversations, cancels)


async def erase_due(database: Database, moment: datetime) -> int:
    """Decide the same of conversations in which nobody has written for longer than their tenant keeps content.

    Some hundred at a time, and by one process at a time. Returns how many. Raises DatabaseUnavailable.
    """
    async with database.system() as turn:
        lock = await turn.one("SELECT pg_try_advisory_xact_lock(:key) AS held", key=_ONE_AT_A_TIME)
        if lock is None or not lock["held"]:
            return 0
        due = await turn.all("SELECT * FROM control.content_due(:moment, :most)", moment=moment, most=_AT_ONCE)
        by_tenant: defaultdict[UUID, list[UUID]] = defaultdict(list)
        for row in due:
            by_tenant[row["tenant_id"]].append(row["conversation_id"])
        for tenant_id, conversations in by_tenant.items():
            async with database.tenant(tenant_id) as session:
                for conversation_id in await _delete_keys(session, conversations):
                    await _erased(session, conversation_id, "retention", RETENTION)
    return len(due)


async def recent_in(database: Database, tenant_id: UUID, conversations: Sequence[UUID]) -> list[UUID]:
    """Generations there whose token streams may still stand. Raises DatabaseUnavailable."""
    async with database.tenant(tenant_id) as session:
        rows = await session.all(
            "SELECT id FROM read_models.generations WHERE conversation_id = ANY(CAST(:ids AS uuid[]))"
            " AND (ended_at IS NULL OR ended_at > now() - make_interval(hours => :hours))",
            ids=list(conversations),
            hours=_STREAMS_STAND_HOURS,
        )
    return [row["id"] for row in rows]


async def _delete_keys(session: TenantSession, conversations: Sequence[UUID]) -> list[UUID]:
    """Those that had one, each once."""
    rows = await session.all(
        "DELETE FROM control.data_keys WHERE conversation_id = ANY(CAST(:ids AS uuid[])) RETURNING conversation_id",
        ids=list(conversations),
    )
    return sorted({row["conversation_id"] for row in rows})


async def _erased(session: TenantSession, conversation_id: UUID, reason: EraseReason, actor: str) -> UUID:
    return await _decided(
        session,
        EraseContent(conversation_id=conversation_id, reason=reason),
        ContentErased(conversation_id=conversation_id, reason=reason),
        actor,
    )


async def _decided(session: TenantSession, command: Payload, event: Payload, actor: str) -> UUID:
    asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=session.tenant_id, actor=actor)
    decided = asked.caused(event, id=new_id(), source=SOURCE)
    await outbox.add(session, decided)
    return decided.id
