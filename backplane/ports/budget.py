"""Limits, counted for all processes together: what was admitted, what is reserved, what was used.

A prompt is counted in each of its scopes, whether or not a limit is set there, so that one that is set later is exact
at once. What it may use is reserved before it is published, in one step over all scopes, all or nothing; the record
says what became of it. Whoever settles the record names the line up to which he did, so that no line counts twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Literal, NamedTuple, Protocol
from urllib.parse import quote
from uuid import UUID

from event_schemas.envelope import PLATFORM
from event_schemas.limits import Dimension, Limits

Kind = Literal["requests_per_minute", "tokens_per_minute", "concurrent", "usd_per_day", "usd_per_month"]

KINDS: tuple[Kind, ...] = ("requests_per_minute", "tokens_per_minute", "concurrent", "usd_per_day", "usd_per_month")

NANO = 1_000_000_000


def nano_usd(usd: Decimal) -> int:
    """Billionths of a dollar, rounded up."""
    return int((usd * NANO).to_integral_value(rounding=ROUND_CEILING))


class BudgetUnavailable(Exception):
    """The counters do not answer, or were lost and are not rebuilt yet. Nothing may be admitted until they are."""


class CountersLost(BudgetUnavailable):
    """The counters answer, and are not those of this installation's record: they have to be rebuilt."""


class Scope(NamedTuple):
    """Whose use is counted. Models and personas are a tenant's view of them, or with ``PLATFORM`` everybody's."""

    dimension: Dimension
    tenant_id: UUID
    subject_id: str = ""

    @property
    def name(self) -> str:
        return f"{self.dimension}:{self.tenant_id}:{quote(self.subject_id, safe='')}"


def scopes(
    tenant_id: UUID, user_id: UUID | None, key_id: UUID | None, model: str, persona: str | None = None
) -> tuple[Scope, ...]:
    """All that a prompt counts in."""
    return (
        Scope("platform", PLATFORM),
        Scope("tenant", tenant_id),
        *(() if user_id is None else (Scope("user", tenant_id, str(user_id)),)),
        *(() if key_id is None else (Scope("key", tenant_id, str(key_id)),)),
        Scope("model", PLATFORM, model),
        Scope("model", tenant_id, model),
        *(() if persona is None else (Scope("persona", tenant_id, persona),)),
    )


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one generation may use. ``nano_usd`` are billionths of a dollar."""

    generation_id: UUID
    tenant_id: UUID
    tokens: int
    nano_usd: int


@dataclass(frozen=True, slots=True)
class Standing:
    """One limit as it stands. Money is in billionths of a dollar."""

    scope: Scope
    kind: Kind
    limit: int
    used: int
    """What is reserved counts, too."""
    warn_at_percent: int | None
    resets_s: float
    """Until nothing is used any more, if nothing new comes; 0 of what runs at a time, since nobody knows."""

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def nearly_reached(self) -> bool:
        """A warning is due."""
        return self.warn_at_percent is not None and self.used * 100 >= self.limit * self.warn_at_percent


@dataclass(frozen=True, slots=True)
class Admitted:
    """Reserved in every scope."""

    standings: tuple[Standing, ...]
    fresh: bool = True
    """False: it was reserved before."""


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Nothing was reserved anywhere. ``by`` is the limit that is in the way for longest."""

    by: Standing
    wait_s: float | None
    """Asking again before is in vain; None: it is more than the limit ever allows."""
    standings: tuple[Standing, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """What a scope has used: in the last minute, now, and of its money."""

    requests: int
    tokens: int
    concurrent: int
    reserved_nano_usd: int
    """By what has not ended; in neither of the sums below."""
    day_nano_usd: int
    month_nano_usd: int


class Budget(Protocol):
    """The side of admission. Everything raises BudgetUnavailable."""

    async def reserve(
        self, reservation: Reservation, limits: Sequence[tuple[Scope, Limits]], *, publish_s: float
    ) -> Admitted | Exceeded:
        """Count ``reservation`` in all scopes, or in none. Reserving the same generation again counts nothing.

        Within ``publish_s`` seconds it is to be published or released; later the record is asked what became of it.
        """

    async def release(self, generation_id: UUID) -> None:
        """It was not published and never will be. What the record has seen meanwhile stays reserved."""

    async def look(self, scopes: Sequence[Scope]) -> list[Use]:
        """What was used and is reserved, scope by scope."""

    async def counts(self) -> None:
        """Return if there are counters to admit by."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The record has the prompt."""

    reservation: Reservation
    scopes: tuple[Scope, ...]
    ended: bool = False
    """Its end is in the record, too, before this or after it."""


@dataclass(frozen=True, slots=True)
class Spent:
    """An attempt ended at ``at``, having used so much; ``ends`` where its generation ended with it."""

    generation_id: UUID
    scopes: tuple[Scope, ...]
    tokens: int
    nano_usd: int
    at: datetime
    ends: bool


@dataclass(frozen=True, slots=True)
class Overdue:
    """A reservation whose prompt ought to be published by now and that the record has not named."""

    generation_id: UUID
    tenant_id: UUID
    deadline_ms: int


class Counted(NamedTuple):
    """What the read models say that a scope has used: in the last minute, this day and this month."""

    scope: Scope
    requests: int
    tokens: int
    day_nano_usd: int
    month_nano_usd: int


class Rebuild(NamedTuple):
    """The next step of a rebuild."""

    token: str
    step: int = 0


class Settlement(Protocol):
    """The side of the record. Everything raises BudgetUnavailable."""

    async def counts(self) -> None:
        """Return if there are counters to admit by."""

    async def cursors(self) -> dict[UUID, int]:
        """The line up to which each tenant's record is settled."""

    async def settle(self, tenant_id: UUID, after: int, to: int, changes: Sequence[Opened | Spent]) -> int:
        """Count the lines ``after + 1 … to``, unless others than ``after`` lines are settled. Returns how many are."""

    async def overdue(self, limit: int) -> list[Overdue]: ...

    async def resolve(self, overdue: Overdue, *, published: bool) -> None:
        """Keep it until its end, or release it; nothing where it was reserved anew meanwhile."""

    async def begin(self) -> Rebuild:
        """Forget everything, and admit nothing until ``finish``."""

    async def load(
        self,
        rebuild: Rebuild,
        day: date,
        counted: Sequence[Counted],
        opened: Sequence[Opened],
        cursors: Sequence[tuple[UUID, int]],
    ) -> Rebuild:
        """Add to what is counted, as it was on ``day``; returns what the next step takes.

        Raises CountersLost where another rebuild began, another server answers, or nobody knows whether a step was
        taken: then it has to begin again.
        """

    async def finish(self, rebuild: Rebuild) -> None:
        """From now on is admitted again. Raises as ``load``."""
