"""kill -9 of a random process every second or two, under 200 streams: nothing that was promised is broken."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.chaos.house import House, running
from tests.chaos.inspection import bugs_in, faults
from tests.chaos.schedule import schedule
from tests.chaos.talkers import Crowd, Talk, crowd
from tests.e2e.client import eventually
from tests.pulsar_broker import pulsar_broker

STREAMS = 200
TENANTS = 4
_BEGINS_S = 180.0


def test_a_seed_gives_the_same_kills_again() -> None:
    victims = ["worker", "worker", "projections", "postgres"]
    kills = schedule(7, 600, victims)
    assert kills == schedule(7, 600, victims)
    assert kills != schedule(8, 600, victims)
    assert sorted(kill.victim for kill in kills[:4]) == sorted(victims)
    gaps = [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(kills)]
    assert 1 <= min(gaps) <= max(gaps) <= 2
    assert kills[-1].at_s < 600 <= kills[-1].at_s + 2


@pytest.mark.parametrize("bus", ["postgres", pytest.param("pulsar", marks=pytest.mark.pulsar)])
async def test_what_was_promised_outlasts_every_kill(
    bus: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: int | None = request.config.getoption("--chaos-seed")
    seed = random.SystemRandom().randrange(2**32) if given is None else given
    seconds: float = request.config.getoption("--chaos-seconds")
    folder = Path(tempfile.mkdtemp(prefix="parley-chaos-"))
    run = f"--chaos-seed={seed} --chaos-seconds={seconds:g} replays these kills; what services said is kept in {folder}"
    print(run)
    with pulsar_broker(folder / "broker") if bus == "pulsar" else nullcontext() as broker:
        async with running(folder, monkeypatch, broker, TENANTS) as house:
            async with crowd(house, STREAMS, seed) as people:
                followed = await _break_everything(house, people, seed, seconds)
                await people.finish()
                talks = people.talks
            print(_account(house, talks, followed))
            found = await faults(house, talks)
    found += bugs_in(folder / "data" / "logs")
    if found:
        pytest.fail("\n".join([f"{len(found)} findings; {run}", *found]), pytrace=False)
    _assert_it_was_chaos(house, talks)
    shutil.rmtree(folder)


async def _break_everything(house: House, people: Crowd, seed: int, seconds: float) -> list[int]:
    """Returns how many streams were followed at each kill."""

    async def open_streams() -> int:
        return people.open

    # All but those who are between two prompts.
    await eventually(open_streams, lambda streams: streams >= 0.95 * STREAMS, within=_BEGINS_S)
    followed: list[int] = []
    began = time.monotonic()
    for kill in schedule(seed, seconds, house.victims):
        await asyncio.sleep(began + kill.at_s - time.monotonic())
        followed.append(people.open)
        house.kill(kill.victim)
    return followed


def _assert_it_was_chaos(house: House, talks: Sequence[Talk]) -> None:
    """A run in which nothing was broken proves nothing."""
    assert sum(kill.hit for kill in house.killed) > len(house.killed) / 3
    assert any(talk.answer.cuts for talk in talks)
    assert any("restarted" in talk.answer.told for talk in talks)
    assert sum(talk.answer.told[-1] == "completed" for talk in talks) > STREAMS / 2


def _account(house: House, talks: Sequence[Talk], followed: Sequence[int]) -> str:
    ends = Counter(talk.broken or talk.answer.told[-1] for talk in talks)
    killed = Counter(kill.victim if kill.hit else "nobody" for kill in house.killed)
    return (
        f"{min(followed)} to {max(followed)} streams followed, {statistics.median(followed):g} mostly; "
        f"{len(talks)} prompts ({sum(talk.repeats for talk in talks)} repeats): {dict(ends)}; "
        f"{sum(talk.answer.told.count('restarted') for talk in talks)} restarts, "
        f"{sum(talk.answer.cuts for talk in talks)} cuts; killed: {dict(killed)}"
    )
