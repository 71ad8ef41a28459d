"""What `parley recover` does with what the record and the database have."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from event_schemas.codec import AnyEnvelope, decode
from event_schemas.generation import SubmitPrompt
from event_schemas.topics import commands
from tests.conftest import TestDatabase
from tests.integration.bus_world import BUSES, World, told
from tests.unit.projections.story import Story
from workers.recovery import recover

KEPT_HOURS = 24


@pytest.fixture(params=BUSES)
async def world(request: pytest.FixtureRequest, database: TestDatabase) -> AsyncIterator[World]:
    async with told(request, database) as made:
        yield made


def asked(pool: str) -> AnyEnvelope:
    """A prompt, and nothing since."""
    prompt = Story().whole()[0]
    assert isinstance(prompt.data, SubmitPrompt)
    return prompt.model_copy(update={"data": prompt.data.model_copy(update={"pool": pool})})


async def test_prompts_of_a_pool_that_is_gone_hold_up_no_others(world: World) -> None:
    live, dead = [asked("local") for _ in range(3)], [asked(pool) for pool in ("old", "old", "older")]
    waiting = [each for pair in zip(dead, live, strict=True) for each in pair]
    await world.tell(*waiting)
    heads = await world.bus.heads(commands("local"))
    recovered = await recover(world.database, world.bus, KEPT_HOURS)
    assert (recovered.prompts, recovered.gone) == (3, {"old": 2, "older": 1})
    again = [
        decode(message.payload).id
        for partition, head in enumerate(heads)
        for message in await world.bus.read(commands("local"), partition, after=head, limit=10)
    ]
    assert sorted(again) == sorted(each.id for each in live)
