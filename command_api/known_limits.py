"""Which limits hold for a prompt, looked up once and remembered for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from uuid import UUID

from backplane.ports.budget import Scope
from backplane.ports.database import Database
from backplane.ports.single_flight import SingleFlight
from backplane.ports.token_stream import Signals
from event_schemas.envelope import PLATFORM
from event_schemas.limits import Limits

CHANGED = "limits:changed"
"""Signals channel on which the id of the tenant is sent whose limits changed; that of the platform for everybody's."""

_MOST_REMEMBERED = 10_000

Limited = list[tuple[Scope, Limits]]

_NONE = Limits()


class KnownLimits:
    """Remembers for ``remember_s`` seconds, or until a change is signalled."""

    def __init__(self, database: Database, remember_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._remember_s = remember_s
        self._clock = clock
        self._remembered: dict[tuple[Scope, ...], tuple[float, UUID, Limited]] = {}
        self._looking_up = SingleFlight(self._look_up)
        self._changes = 0

    async def of(self, tenant_id: UUID, scopes: tuple[Scope, ...]) -> Limited:
        """Each of ``scopes`` with its limits. Raises DatabaseUnavailable."""
        known = self._remembered.get(scopes)
        if known is not None and known[0] > self._clock():
            return known[2]
        return await self._looking_up.get((tenant_id, scopes))

    async def _look_up(self, wanted: tuple[UUID, tuple[Scope, ...]]) -> Limited:
        tenant_id, scopes = wanted
        now, changes = self._clock(), self._changes
        found = await find(self._database, tenant_id, scopes)
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        if changes == self._changes:  # else what was found may be older than the change
            self._remembered[scopes] = (now + self._remember_s, tenant_id, found)
        return found

    def forget(self, tenant_id: UUID) -> None:
        """Its limits changed; those of ``PLATFORM`` are everybody's."""
        self._changes += 1
        if tenant_id == PLATFORM:
            self._remembered.clear()
        for scopes in [scopes for scopes, known in self._remembered.items() if known[1] == tenant_id]:
            del self._remembered[scopes]

    async def forget_changed(self, signals: Signals) -> None:
        """Follow the changes until this task is cancelled."""
        async with signals.listen(CHANGED) as tenants:
            async for tenant_id in tenants:
                self.forget(UUID(tenant_id))


async def find(database: Database, tenant_id: UUID, scopes: Sequence[Scope]) -> Limited:
    """Each of ``scopes``, which are ``tenant_id``'s or the platform's, with its limits. Raises DatabaseUnavailable."""
    rows = await database.at_once(
        "SELECT * FROM control.find_limits(:tenant_id, CAST(:dimensions AS text[]), CAST(:subjects AS text[]))",
        tenant_id=tenant_id,
        dimensions=[scope.dimension for scope in scopes],
        subjects=[scope.subject_id for scope in scopes],
    )
    by_scope = {
        Scope(row["dimension"], row["tenant_id"], row["subject"]): Limits.model_validate(row["limits"]) for row in rows
    }
    return [(scope, by_scope.get(scope, _NONE)) for scope in scopes]
