"""What an autoscaler looks at: what waits, what runs, and what the keys may still be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from prometheus_client import Gauge

from backplane.ports.bus import BusError, Publisher
from backplane.ports.key_room import RoomUnavailable
from event_schemas import topics
from workers.upstream import Upstream

_EVERY_S = 5.0

_backlog = Gauge("parley_pool_backlog", "Prompts of the pool that were not dealt with yet, running ones too", ["pool"])
_oldest = Gauge(
    "parley_pool_oldest_waiting_seconds", "Age of the oldest prompt that waits in this worker; 0: none", ["pool"]
)
_left = Gauge("parley_key_requests_left", "Requests that the key may still be asked in this minute", ["pool", "key"])
_resting = Gauge("parley_key_resting_seconds", "For how long the key is not asked; 0: it is", ["pool", "key"])
_running = Gauge("parley_key_running", "Requests that run with the key, of all workers", ["pool", "key"])


async def measure(
    pool: str,
    publisher: Publisher,
    upstream: Upstream,
    oldest_waiting_s: Callable[[], float],
    every_s: float = _EVERY_S,
) -> None:
    """Keep the gauges of ``pool``, until this task is cancelled. What cannot be asked keeps its last value."""
    known: set[str] = set()
    while True:
        _oldest.labels(pool).set(oldest_waiting_s())
        with suppress(BusError):
            _backlog.labels(pool).set(sum(await publisher.backlog(topics.commands(pool), topics.WORKERS)))
        with suppress(RoomUnavailable):
            keys = await upstream.look()
            for retired in known - {key.key_id for key in keys}:
                for gauge in (_left, _resting, _running):
                    gauge.remove(pool, retired)
            known = {key.key_id for key in keys}
            for key in keys:
                if key.requests_per_minute is not None:
                    _left.labels(pool, key.key_id).set(max(0, key.requests_per_minute - key.requests))
                _resting.labels(pool, key.key_id).set(key.resting_s)
                _running.labels(pool, key.key_id).set(key.running)
        await asyncio.sleep(every_s)
