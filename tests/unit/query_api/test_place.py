from __future__ import annotations

from typing import Any

import pytest

from backplane.ports.key_room import RoomUnavailable, Shut
from query_api.place import Place, estimated_wait_s


class Room:
    def __init__(self, shut: Shut | None = None, away: bool = False) -> None:
        self._shut, self._away = shut, away
        self.asked: list[str] = []

    async def shut(self, ring: str) -> Shut | None:
        self.asked.append(ring)
        if self._away:
            raise RoomUnavailable("away")
        return self._shut


def known(**facts: Any) -> dict[str, Any]:
    nothing = {"pool": "p", "owner": None, "ahead": 0, "busy_s": 0.0, "ended": 0, "started": 0, "start_age_s": None}
    return nothing | facts


FULL, RESTING = Shut(seconds=20, rests=False), Shut(seconds=20, rests=True)


@pytest.mark.parametrize(
    ("facts", "shut", "seconds"),
    [
        # 10 ended in 20 s, so that one starts every 2 s.
        (known(busy_s=20.0, ended=10), None, 2),
        (known(busy_s=20.0, ended=10, ahead=4), None, 10),
        # It does so once the keys have rested.
        (known(busy_s=20.0, ended=10, ahead=4), RESTING, 30),
        # Of 5 that started in the last minute, the one with as many before it did 40 s ago: 20 s from now again.
        (known(ahead=2, started=5, start_age_s=40.0), FULL, 20),
        # With 12 before it, the minute comes round twice first.
        (known(ahead=12, started=5, start_age_s=40.0), FULL, 140),
        # Never before there is any room at all.
        (known(ahead=0, started=5, start_age_s=59.0), FULL, 20),
        # Nothing is known, so nothing is said.
        (known(ahead=3, busy_s=5.0), None, None),
        (known(ahead=3, busy_s=5.0), RESTING, None),
        (known(ahead=3, busy_s=5.0, ended=7), FULL, None),
    ],
)
def test_the_wait_goes_by_what_the_last_minute_showed(
    facts: dict[str, Any], shut: Shut | None, seconds: float | None
) -> None:
    assert estimated_wait_s(facts, shut) == seconds


async def test_the_room_of_its_pool_is_asked_for_and_only_while_it_is_queued() -> None:
    room = Room(FULL)
    assert await Place.of(known(pool="cloud", ahead=2, started=5, start_age_s=39.96), room) == Place(2, 20.0)
    assert room.asked == ["cloud"]
    assert await Place.of(None, room) is None
    assert room.asked == ["cloud"]


async def test_a_tenants_own_keys_have_room_of_their_own() -> None:
    room, owner = Room(FULL), "01990000-0000-7000-8000-000000000009"
    await Place.of(known(pool="cloud", owner=owner, ahead=0, started=5, start_age_s=40.0), room)
    assert room.asked == [f"cloud:{owner}"]


async def test_without_the_counters_nobody_knows() -> None:
    assert await Place.of(known(ahead=4, busy_s=20.0, ended=10), Room(away=True)) == Place(4, None)
