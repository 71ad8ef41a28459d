"""Limits of a subject: each change is a command with an event, decided in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backplane.ports.budget import Budget, Scope, Use
from backplane.ports.database import Database, TenantSession
from backplane.ports.token_stream import Signals
from command_api import outbox
from command_api.known_limits import CHANGED
from event_schemas.limits import Limits, LimitsSet, SetLimits

SOURCE = "/parley/command_api"

_THERE = {
    "user": "SELECT 1 FROM control.users WHERE user_id = CAST(:id AS uuid)",
    "key": "SELECT 1 FROM control.api_keys WHERE key_id = CAST(:id AS uuid)",
}


class NoSuchSubject(LookupError):
    """Not there, or somebody else's. ``args[0]`` names what."""


@dataclass(frozen=True, slots=True)
class Limited:
    """A subject's limits, and what it has used."""

    scope: Scope
    limits: Limits
    use: Use


async def set_limits(database: Database, signals: Signals, scope: Scope, limits: Limits, *, actor: str) -> bool:
    """``limits`` hold for ``scope`` from now on, in place of any before. False if they did already.

    Every process knows within a moment, or once it has forgotten what it remembers, seconds later. Raises
    NoSuchSubject, DatabaseUnavailable.
    """
    async with database.tenant(scope.tenant_id) as session:
        await _check(session, scope)
        changed = await set_within(session, scope, limits, actor=actor)
    await signals.send(CHANGED, str(scope.tenant_id))
    return changed


async def set_within(session: TenantSession, scope: Scope, limits: Limits, *, actor: str) -> bool:
    """The same as a part of a transaction, after which its maker signals ``CHANGED``."""
    about = {"tenant_id": scope.tenant_id, "dimension": scope.dimension, "subject": scope.subject_id}
    given = limits.model_dump(mode="json", exclude_none=True)
    if given:
        changed = await session.execute(
            "INSERT INTO control.limits AS l (tenant_id, dimension, subject, limits)"
            " VALUES (:tenant_id, :dimension, :subject, :limits)"
            " ON CONFLICT (tenant_id, dimension, subject) DO UPDATE SET limits = excluded.limits"
            " WHERE l.limits <> excluded.limits",
            limits=given,
            **about,
        )
    else:
        changed = await session.execute(
            "DELETE FROM control.limits WHERE tenant_id = :tenant_id AND dimension = :dimension AND subject = :subject",
            **about,
        )
    if changed:
        command = SetLimits(dimension=scope.dimension, subject_id=scope.subject_id, limits=limits)
        await outbox.decided(session, SOURCE, command, LimitsSet(**command.model_dump()), actor)
    return bool(changed)


async def limits_of(database: Database, budget: Budget, tenant_id: UUID) -> list[Limited]:
    """All that are set under ``tenant_id``, with what was used. Raises DatabaseUnavailable, BudgetUnavailable."""
    async with database.tenant(tenant_id) as session:
        rows = await session.all(
            "SELECT dimension, subject, limits FROM control.limits WHERE tenant_id = :tenant_id"
            " ORDER BY dimension, subject",
            tenant_id=tenant_id,
        )
    scopes = [Scope(row["dimension"], tenant_id, row["subject"]) for row in rows]
    uses = await budget.look(scopes) if scopes else []
    return [
        Limited(scope, Limits.model_validate(row["limits"]), use)
        for scope, row, use in zip(scopes, rows, uses, strict=True)
    ]


async def _check(session: TenantSession, scope: Scope) -> None:
    there = _THERE.get(scope.dimension)
    if there is None:
        return
    try:
        subject_id = str(UUID(scope.subject_id))
    except ValueError:
        raise NoSuchSubject(scope.dimension) from None
    if subject_id != scope.subject_id or await session.one(there, id=subject_id) is None:
        raise NoSuchSubject(scope.dimension)
