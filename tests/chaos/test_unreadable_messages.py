"""Messages that this release cannot read: set aside where nobody ever can, left standing where a newer one can."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from backplane.ports.identifiers import new_id
from backplane.wiring.operations import operator_bus
from event_schemas.topics import CONTROL, EVENTS, commands
from tests.chaos.newer_release import GenerationApplauded
from tests.chaos.world import World, not_ready, try_later, works
from tests.e2e.client import Answer, Client, Json, eventually
from tests.e2e.running import until

pytestmark = pytest.mark.timeout(240)


async def test_messages_that_nobody_can_read_are_set_aside_and_nothing_waits_behind_them(
    world: World, client: Client
) -> None:
    broken = {
        commands("local"): b"not json",
        CONTROL: b'{"type": "generation.cancel.v1", "data": {"content": "a secret"}}',
        EVENTS: b'{"no": "type"}',
    }
    async with operator_bus(world.settings) as bus:
        for topic, payload in broken.items():
            for partition in range(len(await bus.heads(topic))):
                await bus.publish(topic, payload, partition=partition)
    await works(client)
    endless = await client.submit("talk", script={"count": 100_000, "delay_s": 0.05})
    await client.cancel(endless["generation_id"])
    assert (await client.ended(endless["generation_id"]))["status"] == "cancelled"

    async def listed() -> list[Json]:
        said = await asyncio.to_thread(world.up.parley, "dlq", "list")
        return [json.loads(line) for line in said.splitlines()]

    letters = await eventually(listed, lambda letters: {letter["topic"] for letter in letters} == set(broken))
    reasons = {letter["topic"]: letter["reason"] for letter in letters}
    assert "not JSON" in reasons[commands("local")]
    assert "generation.cancel.v1" in reasons[CONTROL]
    assert "no `type`" in reasons[EVENTS]
    assert "a secret" not in json.dumps(letters)
    assert await not_ready(client) == {}


async def test_an_event_of_a_newer_release_waits_for_one_and_holds_up_no_prompt(world: World, client: Client) -> None:
    generation = await works(client)
    subject = f"generation:{generation['id']}"
    known = (await client.events(type="generation.completed.v3", subject=subject))[0]
    wire_name = GenerationApplauded.wire_name
    newer = {**known, "id": str(new_id()), "type": wire_name, "dataschema": f"urn:parley:schema:{wire_name}"}
    async with operator_bus(world.settings) as bus:
        await bus.publish(EVENTS, orjson.dumps(newer), key=known["tenantid"])
    await asyncio.to_thread(until, lambda: wire_name in world.up.output, "nobody was told that the projections stopped")
    assert "upgrade" in world.up.output

    # Prompts are accepted and streamed; only what is read from the read models has to wait, and says so.
    accepted = await client.submit("Still there?")
    answer = await client.follow_through(accepted["generation_id"], Answer())
    assert answer.told[-1] == "completed"
    try_later(await client.http.get(accepted["generation_url"]))
    assert await client.events(type=wire_name) == []

    # The next release comes, reads it, and goes on with what stood behind it.
    with (world.up.folder / "newer-release.log").open("wb") as log:
        release = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.newer_release"),
            cwd=Path(__file__).parents[2],
            env=world.up.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        assert (await client.ended(accepted["generation_id"]))["content"] == answer.text
        told = await eventually(lambda: client.events(type=wire_name), bool)
        assert [one["id"] for one in told] == [newer["id"]]
    finally:
        with suppress(ProcessLookupError):
            release.terminate()
        await release.wait()
        # This release's own projections stand still until somebody starts them again.
        came_back = world.up.output.count("projections works again")
        world.up.child("projections").kill()
    await asyncio.to_thread(
        until, lambda: world.up.output.count("projections works again") > came_back, "projections did not come back"
    )
    await works(client)
