"""Parley on Apache Pulsar: the same ring, and what an operator reads when the broker or its set-up is wrong."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from backplane.adapters.pulsar_bus import PulsarBus
from backplane.ports.bus import BusRefused, Mode, UnknownTopic
from backplane.settings import BusSettings
from event_schemas import topics
from projections.catalog import PROJECTIONS
from tests.chaos.world import in_mid_answer, not_ready, try_later, works
from tests.e2e.client import Answer, Client, eventually
from tests.e2e.running import Up, free_port
from tests.pulsar_broker import PulsarBroker

pytestmark = [pytest.mark.pulsar, pytest.mark.timeout(300)]

TOKENS = [f"word{place} " for place in range(300)]
SLOW = {"tokens": TOKENS, "delay_s": 0.1}
BRIEF = {"tokens": TOKENS[:60], "delay_s": 0.1}
TEMPORARY, CONFIGURATION = 75, 78


@pytest.fixture(scope="session")
def up(short_folder: Path, shared_broker: PulsarBroker) -> Iterator[Up]:
    up = Up(short_folder / "on-pulsar", **shared_broker.environment, PARLEY_BUS__PULSAR__NAMESPACE="e2e")
    with up.serving():
        yield up


@pytest.fixture
async def client(up: Up) -> AsyncIterator[Client]:
    async with Client(up.url, up.admin_key) as opened:
        yield opened


async def test_a_prompt_goes_round_the_ring(client: Client) -> None:
    assert await not_ready(client) == {}
    ended = await works(client)
    assert ended["attempt"] == 1


async def test_read_models_equal_what_the_broker_holds(client: Client, up: Up) -> None:
    await works(client)
    said = await asyncio.to_thread(up.parley, "rebuild", "all", "--check", "--from-bus")
    assert said.count("equals the bus (") == len(PROJECTIONS)


async def test_what_runs_goes_on_when_its_topics_are_unloaded(
    client: Client, shared_broker: PulsarBroker, up: Up
) -> None:
    accepted = await client.submit("talk", script=BRIEF)
    answer = Answer()
    following = asyncio.create_task(client.follow_through(accepted["generation_id"], answer))
    await in_mid_answer(answer)
    for topic in (topics.commands("local"), topics.EVENTS, topics.CONTROL):
        await asyncio.to_thread(shared_broker.admin, "PUT", f"persistent/parley/e2e/{topic}/unload")
    assert (await following).text == "".join(TOKENS[:60])
    assert "restarted" not in answer.told
    ended = await client.ended(accepted["generation_id"])
    assert (ended["status"], ended["attempt"], ended["content"]) == ("completed", 1, "".join(TOKENS[:60]))
    await everything_acked(shared_broker)
    await works(client)


async def everything_acked(broker: PulsarBroker) -> None:
    """What was redelivered to the worker that ran it is acked too, and projections have passed all events."""
    subscriptions = {
        topics.commands("local"): (topics.WORKERS, topics.PROJECTIONS),
        topics.EVENTS: (topics.PROJECTIONS,),
    }

    async def left() -> dict[str, int]:
        backlogs: dict[str, int] = {}
        for topic, names in subscriptions.items():
            path = f"persistent/parley/e2e/{topic}/partitioned-stats?getPreciseBacklog=true"
            stats = (await asyncio.to_thread(broker.admin, "GET", path)).json()
            backlogs |= {f"{topic} {name}": stats["subscriptions"][name]["msgBacklog"] for name in names}
        return {name: count for name, count in backlogs.items() if count}

    await eventually(left, lambda found: not found)


async def test_without_the_broker_prompts_are_refused_for_now_and_what_runs_goes_on(
    client: Client, shared_broker: PulsarBroker
) -> None:
    accepted = await client.submit("talk", script=SLOW)
    answer = Answer()
    following = asyncio.create_task(client.follow_through(accepted["generation_id"], answer))
    await in_mid_answer(answer)
    await asyncio.to_thread(shared_broker.kill)
    try:
        key = secrets.token_hex(8)
        try_later(await client.post_prompt("once", idempotency_key=key))
        assert "bus" in await not_ready(client)
        seen = answer.seq

        async def seq() -> int:
            return answer.seq

        # Tokens keep coming meanwhile: they travel through Redis.
        if not answer.ended:
            await eventually(seq, lambda now: now > seen or answer.ended)
    finally:
        await asyncio.to_thread(shared_broker.start)
    assert (await following).text == "".join(TOKENS)
    ended = await client.ended(accepted["generation_id"])
    assert (ended["status"], ended["attempt"], ended["content"]) == ("completed", 1, "".join(TOKENS))
    await eventually(lambda: not_ready(client), lambda reasons: not reasons)
    once = [await client.submit("once", idempotency_key=key) for _ in range(2)]
    assert once[0] == once[1]
    assert (await client.ended(once[0]["generation_id"]))["status"] == "completed"
    await works(client)


def test_the_doctor_looks_at_the_broker(up: Up, shared_broker: PulsarBroker) -> None:
    found = up.parley("doctor")
    assert f"Pulsar, parley/e2e at {shared_broker.url} answers" in " ".join(found.split())


def test_a_broker_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    nobody = {
        "PARLEY_BUS__PULSAR__URL": f"pulsar://127.0.0.1:{free_port()}",
        "PARLEY_BUS__PULSAR__ADMIN_URL": f"http://127.0.0.1:{free_port()}",
    }
    said = Up(tmp_path, **nobody).parley("pulsar", "setup", code=TEMPORARY)
    assert nobody["PARLEY_BUS__PULSAR__ADMIN_URL"] in said
    assert "check that the broker runs, and bus.pulsar.admin_url" in said
    said = Up(tmp_path, **nobody).parley("up", code=TEMPORARY)
    assert "check that the broker runs, and bus.pulsar.admin_url" in said.splitlines()[-1]


def test_setting_up_is_repeatable_and_says_what_is_there(tmp_path: Path, shared_broker: PulsarBroker) -> None:
    settings = {"PARLEY_BUS__PULSAR__TENANT": f"t{uuid.uuid4().hex}", "PARLEY_BUS__PULSAR__NAMESPACE": "fresh"}
    up = Up(tmp_path, **shared_broker.environment, **settings, PARLEY_BUS__RETENTION_HOURS="48")
    first, second = up.parley("pulsar", "setup"), up.parley("pulsar", "setup")
    assert first == second
    namespace = f"{settings['PARLEY_BUS__PULSAR__TENANT']}/fresh"
    wanted = [*topics.all_topics(["local"])]
    wanted += [topics.dead_letters(topic) for topic in wanted]
    assert first.split() == [f"persistent://{namespace}/{topic}" for topic in wanted]
    retention = shared_broker.admin("GET", f"namespaces/{namespace}/retention").json()
    assert retention == {"retentionTimeInMinutes": 48 * 60, "retentionSizeInMB": -1}
    stats = shared_broker.admin("GET", f"persistent/{namespace}/{topics.commands('local')}/partitioned-stats").json()
    assert set(stats["subscriptions"]) == {topics.WORKERS, topics.PROJECTIONS}
    assert stats["metadata"]["partitions"] == BusSettings().partitions


def test_setting_up_without_a_broker_named_says_which_settings(tmp_path: Path) -> None:
    said = Up(tmp_path).parley("pulsar", "setup", code=CONFIGURATION)
    assert "PARLEY_BUS__PULSAR__URL" in said


async def test_a_namespace_that_is_not_ours_is_named(shared_broker: PulsarBroker) -> None:
    bus = PulsarBus(shared_broker.address(namespace="elsewhere"))
    try:
        for call in (
            lambda: bus.publish("events", b"x"),
            lambda: bus.subscribe(["events"], "s", Mode.FAILOVER, prefetch=1),
            lambda: bus.heads("events"),
        ):
            with pytest.raises(
                UnknownTopic, match=r"parley/elsewhere.*check bus\.pulsar\.tenant and bus\.pulsar\.namesp"
            ):
                await call()
    finally:
        await bus.close()


async def test_a_subscription_of_another_type_is_named(shared_broker: PulsarBroker) -> None:
    bus = PulsarBus(shared_broker.address(namespace="types"))
    try:
        await bus.create_topics(["t"], partitions=2)
        await bus.subscribe(["t"], "s", Mode.SHARED, prefetch=1)
        with pytest.raises(BusRefused, match="another mode by somebody who is connected"):
            await bus.subscribe(["t"], "s", Mode.FAILOVER, prefetch=1)
    finally:
        await bus.close()
