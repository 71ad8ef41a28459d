"""What the ports of limits promise, in plain Python and without any speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from backplane.ports.budget import Opened, Reservation, Scope, Spent, Use, nano_usd
from event_schemas.limits import Limits

WINDOW_S = 60


@dataclass
class _Hold:
    reservation: Reservation
    scopes: tuple[Scope, ...]
    second: int
    deadline_ms: int | None


@dataclass
class ReferenceBudget:
    now_ms: int
    _holds: dict[UUID, _Hold] = field(default_factory=dict)
    _requests: list[tuple[int, Scope, int]] = field(default_factory=list)
    _tokens: list[tuple[int, Scope, int]] = field(default_factory=list)
    _spent: list[tuple[datetime, Scope, int]] = field(default_factory=list)
    _settled: dict[UUID, int] = field(default_factory=dict)

    @property
    def _second(self) -> int:
        return self.now_ms // 1000

    def use(self, scope: Scope) -> Use:
        held = [hold for hold in self._holds.values() if scope in hold.scopes]
        now = datetime.fromtimestamp(self._second, UTC)
        spent = [(at.astimezone(UTC), nano) for at, of, nano in self._spent if of == scope]
        return Use(
            self._in_window(self._requests, scope),
            self._in_window(self._tokens, scope),
            len(held),
            sum(hold.reservation.nano_usd for hold in held),
            sum(nano for at, nano in spent if at.date() == now.date()),
            sum(nano for at, nano in spent if (at.year, at.month) == (now.year, now.month)),
        )

    def _in_window(self, entries: list[tuple[int, Scope, int]], scope: Scope) -> int:
        return sum(count for second, of, count in entries if of == scope and second >= self._second - WINDOW_S)

    def reserve(self, reservation: Reservation, limits: Sequence[tuple[Scope, Limits]], publish_s: float) -> str:
        deadline_ms = self.now_ms + round(publish_s * 1000)
        known = self._holds.get(reservation.generation_id)
        if known is not None:
            if known.deadline_ms is not None:
                known.deadline_ms = deadline_ms
            return "again"
        for scope, limit in limits:
            use, nano = self.use(scope), reservation.nano_usd
            for most, wanted in (
                (limit.requests_per_minute, use.requests + 1),
                (limit.tokens_per_minute, use.tokens + reservation.tokens),
                (limit.concurrent, use.concurrent + 1),
                (_nano(limit.usd_per_day), use.day_nano_usd + use.reserved_nano_usd + nano),
                (_nano(limit.usd_per_month), use.month_nano_usd + use.reserved_nano_usd + nano),
            ):
                if most is not None and wanted > most:
                    return "exceeded"
        self._hold(reservation, tuple(scope for scope, _ in limits), deadline_ms)
        return "admitted"

    def _hold(self, reservation: Reservation, scopes: tuple[Scope, ...], deadline_ms: int | None) -> None:
        self._holds[reservation.generation_id] = _Hold(reservation, scopes, self._second, deadline_ms)
        for scope in scopes:
            self._requests.append((self._second, scope, 1))
            self._tokens.append((self._second, scope, reservation.tokens))

    def release(self, generation_id: UUID) -> None:
        hold = self._holds.get(generation_id)
        if hold is not None and hold.deadline_ms is not None:
            del self._holds[generation_id]
            for scope in hold.scopes:
                self._requests.append((hold.second, scope, -1))
                self._tokens.append((hold.second, scope, -hold.reservation.tokens))

    def settle(self, tenant_id: UUID, after: int, to: int, changes: Sequence[Opened | Spent]) -> int:
        if self._settled.get(tenant_id, 0) == after:
            for change in changes:
                if isinstance(change, Spent):
                    self._spend(change)
                elif (hold := self._holds.get(change.reservation.generation_id)) is not None:
                    hold.deadline_ms = None
                else:
                    self._hold(change.reservation, change.scopes, None)
            self._settled[tenant_id] = to
        return self._settled.get(tenant_id, 0)

    def _spend(self, spent: Spent) -> None:
        self._spent += [(spent.at, scope, spent.nano_usd) for scope in spent.scopes]
        hold = self._holds.pop(spent.generation_id, None) if spent.ends else None
        if hold is None:
            self._tokens += [(self._second, scope, spent.tokens) for scope in spent.scopes]
            return
        more = spent.tokens - hold.reservation.tokens
        gone = hold.second < self._second - WINDOW_S
        second = self._second if gone and more > 0 else hold.second
        self._tokens += [(second, scope, more) for scope in hold.scopes]

    def overdue(self) -> set[UUID]:
        return {
            id for id, hold in self._holds.items() if hold.deadline_ms is not None and hold.deadline_ms <= self.now_ms
        }

    def resolve(self, generation_id: UUID, *, published: bool) -> None:
        if published:
            self._holds[generation_id] = replace(self._holds[generation_id], deadline_ms=None)
        else:
            self.release(generation_id)


def _nano(usd: Decimal | None) -> int | None:
    return None if usd is None else nano_usd(usd)
