"""How far the read models are behind the bus, and what was set aside and waits for operators."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from prometheus_client import Gauge, Histogram

from backplane.ports.bus import BusError, Publisher
from backplane.ports.dead_letters import OPERATORS
from event_schemas.codec import AnyEnvelope
from event_schemas.topics import PROJECTIONS, dead_letters

_EVERY_S = 5.0

_lag = Histogram(
    "parley_projections_lag_seconds",
    "From when an event was written to when the read models had it",
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
_backlog = Gauge("parley_projections_backlog", "Messages that the projections did not take in yet", ["topic"])
_waiting = Gauge(
    "parley_dead_letters_waiting", "Messages that were set aside and that operators did not see to", ["topic"]
)


def taken_in(envelopes: Iterable[AnyEnvelope]) -> None:
    """These are committed just now."""
    now = datetime.now(UTC)
    for envelope in envelopes:
        _lag.observe(max(0.0, (now - envelope.time).total_seconds()))


async def measure(bus: Publisher, topics: Sequence[str], stop: asyncio.Event, every_s: float = _EVERY_S) -> None:
    """Keep the gauges of ``topics``, until ``stop`` is set. What cannot be asked keeps its last value."""
    while not stop.is_set():
        for topic in topics:
            with suppress(BusError):
                _backlog.labels(topic).set(sum(await bus.backlog(topic, PROJECTIONS)))
            with suppress(BusError):
                _waiting.labels(topic).set(sum(await bus.backlog(dead_letters(topic), OPERATORS)))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_s)
