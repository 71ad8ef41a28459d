"""The ``KeyRoom`` port in Redis: every step is one run of ``key_room.lua``."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backplane.adapters.redis.connection import FAILED, client
from backplane.ports.key_room import Full, KeyLimits, KeyState, RoomUnavailable, Shut, Taken

_SCRIPT = (Path(__file__).parent / "key_room.lua").read_text()
_SOON_MS = 250
"""When to ask again where only the end of another request makes room."""


class RedisKeyRoom:
    def __init__(self, url: str, *, window_s: float = 60.0, lease_s: float = 30.0) -> None:
        """``window_s`` is how long providers count back; ``lease_s`` how long what is not renewed keeps its room."""
        self._client = client(url)
        self._script = self._client.register_script(_SCRIPT)
        self._window_ms = round(window_s * 1000)
        self._lease_ms = round(lease_s * 1000)
        self._epochs: dict[str, str] = {}

    async def take(self, ring: str, keys: Sequence[KeyLimits], tokens: int) -> Taken | Full:
        if not keys:
            raise ValueError(f"ring {ring!r} has no keys")
        ticket = secrets.token_hex(8)
        limits: list[int] = [
            limit or 0 for key in keys for limit in (key.requests_per_minute, key.tokens_per_minute, key.concurrency)
        ]
        place, wait_ms, epoch, useless = await self._run(
            ring,
            [key.key_id for key in keys],
            "take",
            ticket,
            tokens,
            self._window_ms,
            self._lease_ms,
            _SOON_MS,
            self._epochs.get(ring, ""),
            secrets.token_hex(8),
            *limits,
        )
        self._epochs[ring] = epoch.decode()
        return Taken(ring, keys[place - 1].key_id, ticket) if place else Full(wait_ms / 1000, bool(useless))

    async def counted(self, taken: Taken) -> None:
        await self._run(taken.ring, [taken.key_id], "counted", taken.ticket)

    async def done(self, taken: Taken, tokens: int | None) -> None:
        await self._run(taken.ring, [taken.key_id], "done", taken.ticket, "" if tokens is None else tokens)

    async def give_back(self, taken: Taken) -> None:
        await self._run(taken.ring, [taken.key_id], "give_back", taken.ticket)

    async def renew(self, taken: Sequence[Taken]) -> None:
        for ring in {one.ring for one in taken}:
            of_ring = [one for one in taken if one.ring == ring]
            await self._run(
                ring,
                [one.key_id for one in of_ring],
                "renew",
                self._lease_ms,
                self._window_ms,
                *(one.ticket for one in of_ring),
            )

    async def rest(self, ring: str, key_id: str, seconds: float, reason: str) -> bool:
        (longer,) = await self._run(ring, [key_id], "rest", round(seconds * 1000), reason, self._window_ms)
        return bool(longer)

    async def learn(
        self, ring: str, key_id: str, *, requests_per_minute: int | None, tokens_per_minute: int | None
    ) -> None:
        said: tuple[str | int, ...] = tuple(
            "" if limit is None else limit for limit in (requests_per_minute, tokens_per_minute)
        )
        await self._run(ring, [key_id], "learn", *said, self._window_ms)

    async def look(self, ring: str, keys: Sequence[KeyLimits]) -> list[KeyState]:
        rows = await self._run(ring, [key.key_id for key in keys], "look", self._window_ms)
        return [
            KeyState(
                key.key_id,
                requests=requests,
                tokens=tokens,
                running=running,
                resting_s=rest_ms / 1000,
                reason=reason.decode() if rest_ms else None,
                requests_per_minute=rpm or key.requests_per_minute,
                tokens_per_minute=tpm or key.tokens_per_minute,
            )
            for key, (requests, tokens, running, rest_ms, reason, rpm, tpm) in zip(keys, rows, strict=True)
        ]

    async def shut(self, ring: str) -> Shut | None:
        name = _base(ring) + "shut"
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                pipeline.get(name)
                pipeline.pttl(name)
                why, left_ms = await pipeline.execute()
        except FAILED as error:
            raise _unavailable(error) from error
        return None if why is None else Shut(left_ms / 1000, rests=why == b"rests")

    async def close(self) -> None:
        await self._client.aclose()

    async def _run(self, ring: str, key_ids: Sequence[str], *arguments: str | int) -> Any:
        base = _base(ring)
        parts = (f"{base}{key_id}:{part}" for key_id in key_ids for part in ("window", "tokens", "running", "state"))
        try:
            return await self._script(keys=[base + "epoch", base + "shut", *parts], args=arguments)
        except FAILED as error:
            raise _unavailable(error) from error


def _base(ring: str) -> str:
    # The braces keep a ring in one slot of a cluster.
    return f"room:{{{ring}}}:"


def _unavailable(error: Exception) -> RoomUnavailable:
    return RoomUnavailable(f"the counters of provider keys do not answer: {type(error).__name__}")
