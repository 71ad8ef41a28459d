"""The record beside the bus: every difference is found, on each bus, and what is only on its way is none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from event_schemas.codec import NewerVersion, encode
from event_schemas.topics import EVENTS, commands
from projections.batch import Batch
from projections.bus_comparison import BusReport, compare_with_bus
from projections.event_log import Received
from tests.conftest import TestDatabase
from tests.integration.bus_world import BUSES, TOPICS, World, told

RETENTION = timedelta(hours=24)


@pytest.fixture(params=BUSES)
async def world(request: pytest.FixtureRequest, database: TestDatabase) -> AsyncIterator[World]:
    async with told(request, database) as made:
        yield made


async def compare(world: World) -> BusReport:
    return await compare_with_bus(world.database, world.bus, TOPICS, RETENTION, lambda _: None)


def said(report: BusReport) -> list[tuple[str, str]]:
    return sorted((difference.key["id"], difference.what) for difference in report.differences)


async def test_what_is_on_both_is_equal_whatever_is_on_its_way(world: World) -> None:
    again = world.recorded[3]
    await world.project([*await world.publish(again), *await world.publish(world.stories[0].renamed("twice"))])
    late = await world.publish(*world.stories[1].whole())
    await world.bus.publish(commands("local"), b"no event", partition=1)
    recorded = len({event.id for event in world.recorded})
    report = await compare(world)
    assert (report.differing, said(report)) == (0, [])
    assert (report.messages, report.lines) == (recorded + 1, recorded)
    assert (report.waiting, report.unreadable) == (len(late) + 1, 0)


async def test_a_message_that_is_no_event_is_counted(world: World) -> None:
    await world.bus.publish(EVENTS, b"no event", partition=0)
    await world.project(await world.publish(world.stories[0].renamed("after it")))
    report = await compare(world)
    assert (report.differing, report.unreadable, report.waiting) == (0, 1, 0)


async def test_every_difference_is_found_and_named(world: World) -> None:
    gone, changed, erased, only_recorded = world.recorded[1], world.recorded[2], world.recorded[4], world.stories[0]
    await world.alter("DELETE FROM read_models.event_log WHERE id = $1", gone.id)
    await world.alter(
        "UPDATE read_models.event_log SET envelope = $2 WHERE id = $1",
        changed.id,
        encode(changed.model_copy(update={"actor": "somebody else"})),
    )
    without_content = json.loads(encode(erased))
    without_content["data"].pop("content", None)
    without_content["data"]["more"] = 1
    await world.alter(
        "UPDATE read_models.event_log SET envelope = $2 WHERE id = $1", erased.id, json.dumps(without_content).encode()
    )
    unpublished = only_recorded.renamed("never published")
    await Batch(world.projector).apply([Received(unpublished, encode(unpublished))], [])
    report = await compare(world)
    assert report.differing == 4
    assert said(report) == sorted(
        [
            (str(gone.id), "is on the bus, and the record does not have it"),
            (str(changed.id), "is not in the record as it is on the bus"),
            (str(erased.id), "is not in the record as it is on the bus"),
            (str(unpublished.id), "is in the record, and the bus does not have it"),
        ]
    )


async def test_what_retention_may_have_dropped_is_not_missed(world: World) -> None:
    old = world.stories[0].renamed("long ago").model_copy(update={"time": datetime.now(UTC) - timedelta(hours=23)})
    await Batch(world.projector).apply([Received(old, encode(old))], [])
    lines = (await compare(world)).lines
    assert (await compare(world)).differing == 0
    young = world.stories[0].renamed("today").model_copy(update={"time": datetime.now(UTC) - timedelta(hours=21)})
    await Batch(world.projector).apply([Received(young, encode(young))], [])
    report = await compare(world)
    assert (report.differing, report.lines) == (1, lines + 1)


async def test_what_only_a_newer_release_reads_is_said(world: World) -> None:
    event = world.stories[0].renamed("newer")
    newer = encode(event).replace(b"conversation.renamed.v2", b"conversation.renamed.v3")
    (sent,) = await world.publish(event, raw=newer)
    await world.project([(event, sent[1])])
    with pytest.raises(NewerVersion):
        await compare(world)


async def test_most_differences_are_counted_and_a_few_are_named(world: World) -> None:
    count = await world.owner.fetchval("SELECT count(*) FROM read_models.event_log")
    await world.owner.execute("DELETE FROM read_models.event_log")
    report = await compare_with_bus(world.database, world.bus, TOPICS, RETENTION, lambda _: None, most_differences=3)
    assert (report.differing, len(report.differences), report.lines) == (count, 3, 0)
