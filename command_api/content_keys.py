"""The data keys by which prompts and titles are sealed. Each is stored before anything that it sealed is published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.group_commit import GroupCommit
from backplane.security.content import DataKey, DataKeys


@dataclass(frozen=True, slots=True)
class Sealing:
    """What a prompt is sealed by. Where its tenant does not keep content, the key is its own and dies with its end."""

    key: DataKey
    keeps_content: bool


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is stored nowhere yet. Its tenant's policy says whether it is the conversation's or the prompt's."""

    tenant_id: UUID
    conversation_id: UUID
    generation_id: UUID
    user_id: UUID | None
    key: DataKey
    wrapped: bytes


class KeyGone(LookupError):
    """The conversation's key was there a moment ago: it was deleted meanwhile."""


class ContentKeys:
    """Everything here raises DatabaseUnavailable, WrappingUnavailable, CannotUnwrap."""

    def __init__(self, database: Database, data_keys: DataKeys) -> None:
        self._database = database
        self._data_keys = data_keys
        # What comes during a commit shares the next one.
        self._adding: GroupCommit[NewKey, Row | None] = GroupCommit(self._add)

    async def of_conversation(self, tenant_id: UUID, conversation_id: UUID, wrapped: bytes) -> DataKey:
        """The stored key."""
        return await self._data_keys.unwrap(wrapped, tenant_id, conversation_id)

    async def new(self, tenant_id: UUID, conversation_id: UUID, generation_id: UUID, user_id: UUID | None) -> NewKey:
        key, wrapped = await self._data_keys.make(tenant_id, conversation_id)
        return NewKey(tenant_id, conversation_id, generation_id, user_id, key, wrapped)

    async def add(self, new: NewKey) -> Sealing:
        """Store ``new``, unless its conversation has a key by now: then that one. Raises KeyGone."""
        added = await self._adding.submit(new)
        if added is not None:
            return Sealing(new.key, added["keeps_content"])
        async with self._database.tenant(new.tenant_id) as session:
            return await self._stored(session, new)

    async def add_within(self, session: TenantSession, new: NewKey) -> Sealing:
        """The same as a part of a transaction."""
        rows = await session.all(_ADD, **_columns([new]))
        return Sealing(new.key, rows[0]["keeps_content"]) if rows else await self._stored(session, new)

    async def _add(self, group: Sequence[NewKey]) -> list[Row | Exception | None]:
        rows = await self._database.at_once(_ADD, **_columns(group))
        added = {row["wrapped"]: row for row in rows}
        return [added.get(new.wrapped) for new in group]

    async def _stored(self, session: TenantSession, new: NewKey) -> Sealing:
        row = await session.one(
            "SELECT wrapped FROM control.data_keys WHERE conversation_id = :id AND generation_id IS NULL",
            id=new.conversation_id,
        )
        if row is None:
            raise KeyGone
        return Sealing(await self.of_conversation(new.tenant_id, new.conversation_id, row["wrapped"]), True)


_ADD = """
SELECT wrapped, keeps_content FROM control.add_data_keys(CAST(:tenants AS uuid[]), CAST(:conversations AS uuid[]),
  CAST(:generations AS uuid[]), CAST(:users AS uuid[]), CAST(:keys AS bytea[]))
"""


def _columns(group: Sequence[NewKey]) -> dict[str, list[object]]:
    return {
        "tenants": [new.tenant_id for new in group],
        "conversations": [new.conversation_id for new in group],
        "generations": [new.generation_id for new in group],
        "users": [new.user_id for new in group],
        "keys": [new.wrapped for new in group],
    }
