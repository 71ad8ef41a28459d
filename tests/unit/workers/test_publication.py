from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from backplane.ports.bus import BusUnavailable, MessageTooLarge, Position
from workers.publication import Publication


class Bus:
    """Keeps what is published once the gate is open. Fails as often as it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.failures: list[Exception] = []
        self.asked: list[bytes] = []
        self.published: list[bytes] = []

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: str | None = None,
        partition: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Position:
        self.asked.append(payload)
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.published.append(payload)
        return Position(0, len(self.published))

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        return [0]


async def _ticks() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_during_a_publish_goes_together_and_in_order() -> None:
    bus = Bus()
    publication = Publication(bus, "tenant")
    publication.say(b"1")
    await _ticks()
    publication.say(b"2")
    publication.say(b"3")
    await _ticks()
    assert bus.asked == [b"1"]
    bus.open.set()
    await publication.all_said()
    assert bus.published == bus.asked == [b"1", b"2", b"3"]
    await publication.close()


async def test_an_outage_is_waited_out() -> None:
    bus = Bus()
    bus.open.set()
    bus.failures = [BusUnavailable("away")]
    publication = Publication(bus, "tenant")
    publication.say(b"1")
    await publication.all_said()
    assert bus.published == [b"1"]
    await publication.close()


async def test_what_the_bus_will_never_take_is_raised_to_who_waits_for_it() -> None:
    bus = Bus()
    bus.open.set()
    bus.failures = [MessageTooLarge("5 MiB")]
    publication = Publication(bus, "tenant")
    publication.say(b"1")
    with pytest.raises(MessageTooLarge):
        await publication.all_said()
    await publication.close()


async def test_what_is_closed_publishes_nothing_more() -> None:
    bus = Bus()
    publication = Publication(bus, "tenant")
    publication.say(b"1")
    await _ticks()
    await publication.close()
    bus.open.set()
    await _ticks()
    assert bus.published == []
