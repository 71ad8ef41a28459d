"""What `parley recover` does with what the record and the database have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from event_schemas.codec import AnyEnvelope, decode
from event_schemas.generation import SubmitPrompt
from event_schemas.topics import commands
from tests.conftest import TestDatabase
from tests.integration.bus_world import BUSES, World, told
from tests.unit.projections.story import Story
from workers.recovery import SKEW_S, recover

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


@pytest.mark.parametrize("world", ["postgres"], indirect=True)
@pytest.mark.parametrize(
    ("made", "becomes"),
    [
        pytest.param(timedelta(hours=-1), "erased", id="long before"),
        pytest.param(timedelta(seconds=-SKEW_S - 5), "erased", id="before, however clocks differ"),
        pytest.param(timedelta(seconds=-1), "unsure", id="just before"),
        pytest.param(timedelta(seconds=1), "unsure", id="just after"),
        pytest.param(timedelta(hours=1), "kept", id="long after"),
    ],
)
async def test_a_data_key_is_deleted_again_where_it_is_surely_older_than_the_erasure(
    world: World, made: timedelta, becomes: str
) -> None:
    story, quiet = world.stories
    erased = story.erased()
    await world.tell(erased)
    for each, moment in ((story, erased.time + made), (quiet, erased.time - timedelta(hours=1))):
        await world.owner.execute(
            "INSERT INTO control.data_keys (tenant_id, conversation_id, wrapped, created_at) VALUES ($1, $2, 'x', $3)",
            *(each.tenant_id, each.conversation_id, moment),
        )
    recovered = await recover(world.database, world.bus, KEPT_HOURS)
    keys = {row[0] for row in await world.owner.fetch("SELECT conversation_id FROM control.data_keys")}
    assert (recovered.erased, story.conversation_id in keys) == ((1, False) if becomes == "erased" else (0, True))
    assert recovered.unsure == ([(story.tenant_id, story.conversation_id)] if becomes == "unsure" else [])
    assert quiet.conversation_id in keys
