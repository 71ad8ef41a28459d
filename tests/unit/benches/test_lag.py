from __future__ import annotations

from backplane.ports.bus import Position
from benches.lag import behind, caught_up
from event_schemas.topics import PROJECTIONS


class Draining:
    """A bus whose backlog becomes one smaller with each look."""

    def __init__(self, left: int) -> None:
        self.left = left

    async def publish(self, topic: str, payload: bytes, **_: object) -> Position:
        raise NotImplementedError

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        assert subscription == PROJECTIONS
        if topic != "events":
            return [0, 0]
        self.left -= 1
        return [0, self.left + 1]


async def test_what_is_left_is_of_all_topics_and_partitions() -> None:
    assert await behind(Draining(7), ["events", "control"]) == 7


async def test_nothing_is_left_once_all_is_projected() -> None:
    bus = Draining(3)
    seconds = await caught_up(bus, ["control", "events"])
    assert bus.left == -1
    assert seconds is not None
    assert seconds > 0
