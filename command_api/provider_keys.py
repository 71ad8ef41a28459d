"""Provider keys that are added and retired at run time, by a tenant for itself or for the platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from backplane.ports.database import Database, TenantSession
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Signals
from backplane.security import provider_key
from backplane.security.provider_key import CHANGED, ProviderKey
from backplane.security.sealing import MasterKey
from backplane.settings import PoolSettings
from backplane.settings.pools import KEYED
from command_api import outbox
from command_api.admission import Refused
from event_schemas.control_plane import AddProviderKey, ProviderKeyAdded, ProviderKeyRetired, RetireProviderKey
from event_schemas.envelope import Envelope
from event_schemas.payload import Payload

SOURCE = "/parley/command_api"

MOST_KEYS = 32
"""Live keys of one owner in one pool: each request looks at all of them."""


class AddedBefore(Exception):
    """The same key is there already; ``key_id`` is its id."""

    def __init__(self, key_id: UUID) -> None:
        super().__init__(f"this key was added to the pool before, as {key_id}")
        self.key_id = key_id


class NoSuchProviderKey(LookupError):
    """Not there, or somebody else's."""


@dataclass(frozen=True, slots=True)
class Added:
    id: UUID
    pool: str
    name: str
    fingerprint: str
    added_at: datetime


class ProviderKeys:
    """The keys of tenants and of the platform (whose tenant is ``PLATFORM``) in ``pools``."""

    def __init__(
        self, database: Database, signals: Signals, master_key: MasterKey, pools: Mapping[str, PoolSettings]
    ) -> None:
        self._database = database
        self._signals = signals
        self._master_key = master_key
        self._pools = pools

    async def add(self, owner: UUID, pool: str, secret: str, name: str, *, actor: str) -> Added:
        """From now on ``owner``'s prompts are asked with this key. Raises Refused, AddedBefore, DatabaseUnavailable."""
        (added,) = await self.add_to(owner, (pool,), secret, name, actor=actor)
        return added

    async def add_to(self, owner: UUID, pools: Sequence[str], secret: str, name: str, *, actor: str) -> list[Added]:
        """``add`` in each of ``pools`` that does not have it, or in none where one of them refuses it.

        Raises Refused, AddedBefore where all have it, DatabaseUnavailable.
        """
        keys = {pool: ProviderKey.of(self._checked(pool, secret)) for pool in pools}
        made: list[Added] = []
        before: AddedBefore | None = None
        async with self._database.tenant(owner) as session:
            for pool, key in keys.items():
                try:
                    await self._has_room(session, pool, key)
                except AddedBefore as known:
                    before = known
                else:
                    made.append(await self._made(session, pool, key, name, actor))
        if not made and before is not None:
            raise before
        for one in made:
            await self._signals.send(CHANGED, one.pool)
        return made

    async def _made(self, session: TenantSession, pool: str, key: ProviderKey, name: str, actor: str) -> Added:
        command = AddProviderKey(key_id=new_id(), pool=pool, name=name, fingerprint=key.id)
        row = await session.one(
            "INSERT INTO control.provider_keys (key_id, tenant_id, pool, name, fingerprint, sealed)"
            " VALUES (:key_id, :tenant_id, :pool, :name, :fingerprint, :sealed) RETURNING added_at",
            key_id=command.key_id,
            tenant_id=session.tenant_id,
            pool=pool,
            name=name,
            fingerprint=key.id,
            sealed=self._master_key.seal(key.secret, provider_key.place(session.tenant_id, command.key_id, pool)),
        )
        assert row is not None
        await _decided(session, command, ProviderKeyAdded(**command.model_dump()), actor)
        return Added(command.key_id, pool, name, key.id, row["added_at"])

    async def retire(self, owner: UUID, key_id: UUID, *, actor: str) -> bool:
        """Nothing new is asked with this key, and its secret is gone. False if it was retired already.

        Raises NoSuchProviderKey, DatabaseUnavailable.
        """
        async with self._database.tenant(owner) as session:
            found = await session.one("SELECT pool FROM control.provider_keys WHERE key_id = :id", id=key_id)
            if found is None:
                raise NoSuchProviderKey(f"there is no provider key {key_id}")
            changed = await session.execute(
                "UPDATE control.provider_keys SET retired_at = now(), sealed = NULL"
                " WHERE key_id = :id AND retired_at IS NULL",
                id=key_id,
            )
            if changed:
                await _decided(session, RetireProviderKey(key_id=key_id), ProviderKeyRetired(key_id=key_id), actor)
        await self._signals.send(CHANGED, found["pool"])
        return bool(changed)

    def _checked(self, pool: str, secret: str) -> str:
        keyed = [name for name, one in self._pools.items() if one.backend in KEYED]
        if pool not in keyed:
            why = "takes no keys" if pool in self._pools else "is not there"
            which = ", ".join(keyed) or "none"
            raise Refused("unknown-pool", "body.pool", f"The pool {pool!r} {why}. Pools that take keys: {which}.")
        try:
            return provider_key.checked(secret, self._pools[pool].backend)
        except ValueError as error:
            raise Refused("unusable-key", "body.key", f"The key {error}.") from None

    async def _has_room(self, session: TenantSession, pool: str, key: ProviderKey) -> None:
        # One at a time for each owner, until the end of the transaction.
        await session.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:lock AS text), 0))",
            lock=f"provider_keys/{session.tenant_id}",
        )
        live = await session.all(
            "SELECT key_id, fingerprint FROM control.provider_keys WHERE pool = :pool AND retired_at IS NULL", pool=pool
        )
        for one in live:
            if one["fingerprint"] == key.id:
                raise AddedBefore(one["key_id"])
        if len(live) >= MOST_KEYS:
            raise Refused("too-many-keys", "body.pool", f"{pool!r} has {len(live)} keys, the limit. Retire one.")


async def _decided(session: TenantSession, command: Payload, event: Payload, actor: str) -> None:
    asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=session.tenant_id, actor=actor)
    await outbox.add(session, asked.caused(event, id=new_id(), source=SOURCE))
