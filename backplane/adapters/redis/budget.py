"""The ``Budget`` and ``Settlement`` ports in Redis: every step is one run of ``budget.lua``."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from backplane.adapters.redis.connection import FAILED, client
from backplane.ports.budget import (
    KINDS,
    Admitted,
    BudgetUnavailable,
    Counted,
    CountersLost,
    Exceeded,
    Kind,
    Opened,
    Overdue,
    Rebuild,
    Reservation,
    Scope,
    Spent,
    Standing,
    Use,
    nano_usd,
)
from event_schemas.limits import Limits

_SCRIPT = (Path(__file__).parent / "budget.lua").read_text()
_CONNECTIONS = 16
_NO_LIMIT = -1
_ALWAYS = -1
_EPOCH = date(1970, 1, 1)


class RedisBudget:
    def __init__(self, url: str, *, name: str = "parley", now_ms: Callable[[], int] | None = None) -> None:
        """``name`` keeps installations apart that share a server; ``now_ms`` is the time, None: the server's own."""
        self._client = client(url, most_connections=_CONNECTIONS)
        self._script = self._client.register_script(_SCRIPT)
        # The braces keep all of it in one slot of a cluster.
        self._base = f"budget:{{{name}}}:"
        self._now_ms = now_ms

    async def reserve(
        self, reservation: Reservation, limits: Sequence[tuple[Scope, Limits]], *, publish_s: float
    ) -> Admitted | Exceeded:
        wanted: list[str | int] = []
        for scope, limit in limits:
            wanted += (scope.name, *_numbers(limit))
        answer, place, kind, wait_ms, rows = await self._run(
            "reserve",
            str(reservation.generation_id),
            str(reservation.tenant_id),
            reservation.tokens,
            reservation.nano_usd,
            round(publish_s * 1000),
            *wanted,
        )
        standings = [_standings(scope, limit, row) for (scope, limit), row in zip(limits, rows, strict=True)]
        known = tuple(one for of_scope in standings for one in of_scope.values())
        if answer:
            return Admitted(known, fresh=answer == 1)
        by = standings[place - 1][KINDS[kind - 1]]
        return Exceeded(by, None if wait_ms == _ALWAYS else wait_ms / 1000, known)

    async def release(self, generation_id: UUID) -> None:
        await self._run("release", str(generation_id))

    async def look(self, scopes: Sequence[Scope]) -> list[Use]:
        (rows,) = (await self._run("look", *(scope.name for scope in scopes)))[1:]
        return [Use(*row[:6]) for row in rows]

    async def counts(self) -> None:
        await self._run("counts")

    async def cursors(self) -> dict[UUID, int]:
        (flat,) = (await self._run("cursors"))[1:]
        return {UUID(flat[place].decode()): int(flat[place + 1]) for place in range(0, len(flat), 2)}

    async def settle(self, tenant_id: UUID, after: int, to: int, changes: Sequence[Opened | Spent]) -> int:
        happened = orjson.dumps([_opened(one) if isinstance(one, Opened) else _spent(one) for one in changes])
        (settled,) = (await self._run("settle", str(tenant_id), after, to, happened))[1:]
        return int(settled)

    async def overdue(self, limit: int) -> list[Overdue]:
        (rows,) = (await self._run("overdue", limit))[1:]
        return [Overdue(UUID(one.decode()), UUID(tenant.decode()), deadline) for one, tenant, deadline in rows]

    async def resolve(self, overdue: Overdue, *, published: bool) -> None:
        await self._run("resolve", str(overdue.generation_id), overdue.deadline_ms, int(published))

    async def begin(self) -> Rebuild:
        rebuild = Rebuild(secrets.token_hex(8))
        await self._run("begin", rebuild.token)
        try:
            kept = {(self._base + "rebuild").encode()}
            async for name in self._client.scan_iter(match=_escaped(self._base) + "*", count=1000):
                if name not in kept:
                    await self._client.unlink(name)
        except FAILED as error:
            raise _unavailable(error) from error
        return rebuild

    async def load(
        self,
        rebuild: Rebuild,
        day: date,
        counted: Sequence[Counted],
        opened: Sequence[Opened],
        cursors: Sequence[tuple[UUID, int]],
    ) -> Rebuild:
        sums = [
            {
                "scope": one.scope.name,
                "requests": str(one.requests),
                "tokens": str(one.tokens),
                "day": str(one.day_nano_usd),
                "month": str(one.month_nano_usd),
            }
            for one in counted
        ]
        await self._run(
            "load",
            *rebuild,
            (day - _EPOCH).days,
            orjson.dumps(sums),
            orjson.dumps([_opened(one) for one in opened]),
            orjson.dumps([(str(tenant_id), str(sequence)) for tenant_id, sequence in cursors]),
        )
        return Rebuild(rebuild.token, rebuild.step + 1)

    async def finish(self, rebuild: Rebuild) -> None:
        await self._run("finish", *rebuild)

    async def close(self) -> None:
        await self._client.aclose()

    async def _run(self, action: str, *arguments: str | int | bytes) -> Any:
        now_ms = "" if self._now_ms is None else self._now_ms()
        try:
            answer = await self._script(keys=[self._base], args=(action, now_ms, *arguments))
        except FAILED as error:
            raise _unavailable(error) from error
        if answer[0] == -1:
            raise CountersLost("the counters of limits were lost and are being rebuilt")
        return answer


def _escaped(pattern: str) -> str:
    return "".join(f"\\{one}" if one in "*?[]\\" else one for one in pattern)


def _numbers(limits: Limits) -> Iterable[int]:
    for limit in (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent):
        yield _NO_LIMIT if limit is None else limit
    for usd in (limits.usd_per_day, limits.usd_per_month):
        yield _NO_LIMIT if usd is None else nano_usd(usd)


def _standings(scope: Scope, limits: Limits, row: Sequence[int]) -> dict[Kind, Standing]:
    if not row:
        return {}
    requests, tokens, running, held, day, month, minute_ms, day_ms, month_ms = row
    used = (requests, tokens, running, held + day, held + month)
    resets_ms = (minute_ms, minute_ms, 0, day_ms, month_ms)
    return {
        kind: Standing(scope, kind, limit, use, limits.warn_at_percent, reset_ms / 1000)
        for kind, limit, use, reset_ms in zip(KINDS, _numbers(limits), used, resets_ms, strict=True)
        if limit != _NO_LIMIT
    }


# Lua's JSON has no whole numbers beyond 14 digits, so they go as text.
def _opened(one: Opened) -> dict[str, Any]:
    return {
        "what": "opened",
        "id": str(one.reservation.generation_id),
        "tenant": str(one.reservation.tenant_id),
        "tokens": str(one.reservation.tokens),
        "nano": str(one.reservation.nano_usd),
        "ended": one.ended,
        "scopes": [scope.name for scope in one.scopes],
    }


def _spent(one: Spent) -> dict[str, Any]:
    return {
        "what": "spent",
        "id": str(one.generation_id),
        "tokens": str(one.tokens),
        "nano": str(one.nano_usd),
        "day": str((one.at.astimezone(UTC).date() - _EPOCH).days),
        "ends": one.ends,
        "scopes": [scope.name for scope in one.scopes],
    }


def _unavailable(error: Exception) -> BudgetUnavailable:
    return BudgetUnavailable(f"the counters of limits do not answer: {type(error).__name__}")
