"""Personas as prompts need them, looked up once: which version is the newest, for a moment; what a version says, until
its persona changes or is removed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database
from backplane.ports.single_flight import SingleFlight
from backplane.ports.token_stream import Signals
from backplane.security.content import ContentErased, opened
from command_api.content_keys import ContentKeys
from command_api.persona import Persona
from event_schemas.payload import PersonaRef, Sealed
from event_schemas.personas import PersonaContent

CHANGED = "personas:changed"
"""Signals channel on which the id of the tenant is sent of whose personas one changed."""

_MOST_REMEMBERED = 256


class NoSuchPersona(LookupError):
    """Not there, removed, or somebody else's; or it has no such version."""


@dataclass(frozen=True, slots=True)
class Known:
    ref: PersonaRef
    persona: Persona


_Wanted = tuple[UUID, str | UUID]
"""A tenant, and a persona's name or id."""


class KnownPersonas:
    """Remembers for ``remember_s`` seconds who is there, or until a change is signalled.

    Everything raises DatabaseUnavailable, WrappingUnavailable, CannotUnwrap.
    """

    def __init__(
        self,
        database: Database,
        keys: ContentKeys,
        remember_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._keys = keys
        self._remember_s = remember_s
        self._clock = clock
        self._newest: dict[_Wanted, tuple[float, PersonaRef]] = {}
        self._versions: dict[tuple[UUID, UUID, int], Persona] = {}
        self._looking_up = SingleFlight(self._look_up)
        self._opening = SingleFlight(self._open)
        self._changes = 0

    async def named(self, tenant_id: UUID, name: str, version: int | None = None) -> Known:
        """The newest version, or that one. Raises NoSuchPersona."""
        return await self._known(tenant_id, await self._newest_of((tenant_id, name)), version)

    async def again(self, tenant_id: UUID, ref: PersonaRef) -> Known:
        """What was asked as before, unless it was removed since. Raises NoSuchPersona."""
        return await self._known(tenant_id, await self._newest_of((tenant_id, ref.persona_id)), ref.version)

    def forget(self, tenant_id: UUID) -> None:
        """One of its personas changed or was removed."""
        self._changes += 1
        for wanted in [wanted for wanted in self._newest if wanted[0] == tenant_id]:
            del self._newest[wanted]
        for version in [version for version in self._versions if version[0] == tenant_id]:
            del self._versions[version]

    async def forget_changed(self, signals: Signals) -> None:
        """Follow the changes until this task is cancelled."""
        async with signals.listen(CHANGED) as tenants:
            async for tenant_id in tenants:
                self.forget(UUID(tenant_id))

    async def _newest_of(self, wanted: _Wanted) -> PersonaRef:
        known = self._newest.get(wanted)
        if known is not None and known[0] > self._clock():
            return known[1]
        return await self._looking_up.get(wanted)

    async def _look_up(self, wanted: _Wanted) -> PersonaRef:
        now, changes = self._clock(), self._changes
        tenant_id, which = wanted
        column = "name" if isinstance(which, str) else "persona_id"
        async with self._database.tenant(tenant_id) as session:
            row = await session.one(
                "SELECT persona_id, name, version FROM control.personas"  # noqa: S608 - one of two columns
                f" WHERE removed_at IS NULL AND {column} = :which",
                which=which,
            )
        if row is None:
            for version in [one for one in self._versions if one[:2] == wanted]:
                del self._versions[version]
            raise NoSuchPersona(str(which))
        ref = PersonaRef.model_validate(row)
        if len(self._newest) >= _MOST_REMEMBERED:
            self._newest.clear()
        if changes == self._changes:  # else what was found may be older than the change
            self._newest[wanted] = (now + self._remember_s, ref)
        return ref

    async def _known(self, tenant_id: UUID, newest: PersonaRef, version: int | None) -> Known:
        ref = newest if version is None else newest.model_copy(update={"version": version})
        if ref.version > newest.version:
            raise NoSuchPersona(f"{ref.name}@{ref.version}")
        place = tenant_id, ref.persona_id, ref.version
        return Known(ref, self._versions.get(place) or await self._opening.get(place))

    async def _open(self, place: tuple[UUID, UUID, int]) -> Persona:
        tenant_id, persona_id, version = place
        changes = self._changes
        content = await definition(self._database, self._keys, tenant_id, persona_id, version)
        persona = await asyncio.to_thread(Persona, content)
        if len(self._versions) >= _MOST_REMEMBERED:
            self._versions.clear()
        if changes == self._changes:
            self._versions[place] = persona
        return persona


async def definition(
    database: Database, keys: ContentKeys, tenant_id: UUID, persona_id: UUID, version: int
) -> PersonaContent:
    """What this version says. Raises NoSuchPersona, CannotRead, and as KnownPersonas."""
    async with database.tenant(tenant_id) as session:
        row = await session.one(
            "SELECT v.content, k.wrapped FROM control.persona_versions v JOIN control.data_keys k"
            " ON k.tenant_id = v.tenant_id AND k.conversation_id = v.persona_id AND k.generation_id IS NULL"
            " WHERE v.persona_id = :id AND v.version = :version",
            id=persona_id,
            version=version,
        )
    if row is None:
        raise NoSuchPersona(f"version {version}")
    key = await keys.of_conversation(tenant_id, persona_id, row["wrapped"])
    try:
        return opened(Sealed.model_validate(row["content"]), key, PersonaContent)
    except ContentErased:
        raise NoSuchPersona(f"version {version}") from None
