"""Deliveries to a real receiver: signed, in order, at least once, whatever the receiver or a process of ours does."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from backplane.ports.identifiers import new_id
from command_api.webhook_delivery import PAUSES_S
from command_api.webhooks import NoSuchWebhook
from event_schemas.control_plane import ConversationRenamed
from event_schemas.generation import GenerationCompleted
from event_schemas.payload import Plain
from event_schemas.webhooks import WebhookDisabled
from tests.conftest import TestDatabase
from tests.integration.webhook_world import NEVER, SOON, World, completed, revoked
from tests.receiver import Fault, Receiver, receiver

_TAKING = """SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND usename = 'parley_relay' AND query LIKE '%take_webhooks%'"""


@pytest.fixture
async def world(database: TestDatabase) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(database, stack)


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


async def test_chosen_events_are_delivered_in_order_signed_and_without_content(world: World, hook: Receiver) -> None:
    await world.record(revoked())  # before it was added
    added = await world.add(hook.url + "?token=x", "key.revoked", "generation.completed")
    renamed = ConversationRenamed(conversation_id=new_id(), content=Plain(plain={"title": "canary"}))
    events = [revoked(), completed(), renamed, *(revoked() for _ in range(50))]
    ids = await world.record(*events)
    await world.record(revoked(), tenant=new_id())
    del ids[2]
    async with world.delivering():
        await hook.has(len(ids))
        await world.until(added.id, lambda row: row["told_to"] == len(events) + 1)
        more = await world.record(revoked())
        await hook.has(len(ids) + 1)
    assert hook.ids == ids + more
    for one in hook.deliveries:
        assert one.is_signed_with(added.secret)
        assert not one.is_signed_with("whsec_" + "A" * 43 + "=")
        assert one.path == "/hook?token=x"
        assert one.headers["content-type"] == "application/cloudevents+json"
        assert one.event["id"] == one.id
        assert b"canary" not in one.body
    told = hook.deliveries[1].event
    assert (told["specversion"], told["type"], told["tenantid"]) == (
        "1.0",
        GenerationCompleted.wire_name,
        str(world.tenant),
    )
    assert told["data"]["usage"]["output_tokens"] == 1
    assert "content" not in told["data"]


async def test_what_fails_is_tried_again_and_what_follows_waits_for_it(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    hook.answers.extend([500, 404, "503 Later\r\nRetry-After: 0"])
    first, second = await world.record(revoked(), revoked())
    async with world.delivering():
        await hook.has(5)
        row = await world.until(added.id, lambda row: row["told_to"] == 2)
    assert hook.ids == [first, first, first, first, second]
    assert len({one.body for one in hook.deliveries[:4]}) == 1
    assert all(one.is_signed_with(added.secret) for one in hook.deliveries)
    assert (row["failures"], row["last_failure"]) == (0, None)


FAULTS: dict[Fault, str] = {
    "hangs": "did not answer within 1 s",
    "drips": "did not answer within 1 s",
    "huge head": "not HTTP",
    "closes": "the connection broke",
    "half an answer": "the connection broke",
    "nonsense": "not HTTP",
}


@pytest.mark.parametrize(("fault", "says"), FAULTS.items())
async def test_no_fault_of_a_receiver_is_more_than_a_failure(
    world: World, hook: Receiver, fault: Fault, says: str
) -> None:
    added = await world.add(hook.url)
    hook.answers.append(fault)
    await world.record(revoked())
    async with world.delivering(pauses_s=NEVER):
        row = await world.until(added.id, lambda row: row["failures"] == 1)
        await hook.until(lambda: hook.running == 0)
    assert says in row["last_failure"]
    assert row["next_try_at"].timestamp() > time.time() + 3000
    assert len(hook.deliveries) == 1


async def test_an_answers_body_is_not_read_whatever_its_size(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    hook.answers.append("huge body")
    await world.record(revoked(), revoked())
    async with world.delivering():
        await world.until(added.id, lambda row: row["told_to"] == 2)
        await hook.until(lambda: hook.running == 0)
    assert len(hook.deliveries) == 2


async def test_a_redirect_is_a_failure_and_is_not_followed(world: World, hook: Receiver) -> None:
    async with receiver() as inner:
        added = await world.add(hook.url)
        hook.otherwise = f"307 Temporary Redirect\r\nLocation: {inner.url}"
        await world.record(revoked())
        async with world.delivering(pauses_s=NEVER):
            row = await world.until(added.id, lambda row: row["failures"] == 1)
    assert row["last_failure"] == "it answered 307"
    assert inner.deliveries == []


async def test_nobody_listens_there(world: World, hook: Receiver) -> None:
    async with receiver() as gone:
        url = gone.url
    added = await world.add(url)
    await world.record(revoked())
    async with world.delivering(pauses_s=NEVER):
        row = await world.until(added.id, lambda row: row["failures"] == 1)
    assert row["last_failure"].startswith("no connection could be made")


async def test_a_private_address_is_never_reached_without_leave(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url.replace("http:", "https:"))
    await world.record(revoked())
    async with world.delivering(await world.deliveries(pauses_s=NEVER, allow_private=False)):
        row = await world.until(added.id, lambda row: row["failures"] == 1)
    assert "127.0.0.1 is not on the internet" in row["last_failure"]
    assert hook.most_at_once == 0


async def test_a_slow_receiver_delays_nobody_else(world: World, hook: Receiver) -> None:
    async with receiver() as slow:
        slow.otherwise = "hangs"
        for _ in range(3):
            await world.add(slow.url)
        neighbour, mine = new_id(), await world.add(hook.url)
        theirs = await world.add(hook.url, tenant=neighbour)
        await world.record(revoked())
        await world.record(revoked(), tenant=neighbour)
        async with world.delivering(await world.deliveries(timeout_s=60)):
            await slow.has(3)
            for number in range(10):
                await world.record(revoked())
                await hook.has(number + 3)
            assert slow.running == 3
    assert {one.is_signed_with(mine.secret) for one in hook.deliveries} == {True, False}
    assert sum(one.is_signed_with(theirs.secret) for one in hook.deliveries) == 1


async def test_what_a_killed_process_had_sent_is_delivered_again_with_the_same_id(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    hook.answers.append("hangs")
    first, second = await world.record(revoked(), revoked())
    async with world.process(lease_s=1.0) as process:
        await hook.has(1)
        process.kill()
        await process.wait()
    assert (await world.listed(added.id))["told_to"] == 0
    async with world.delivering():
        await world.until(added.id, lambda row: row["told_to"] == 2)
    assert hook.ids == [first, first, second]
    assert all(one.is_signed_with(added.secret) for one in hook.deliveries)


async def test_one_that_stops_leaves_its_webhooks_to_others_at_once(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    hook.answers.append("hangs")
    (event,) = await world.record(revoked())
    async with world.delivering(await world.deliveries(timeout_s=60)):
        await hook.has(1)
    async with world.delivering():
        await world.until(added.id, lambda row: row["told_to"] == 1)
    assert hook.ids == [event, event]


async def test_several_processes_never_deliver_to_one_webhook_in_parallel(world: World, hook: Receiver) -> None:
    await world.add(hook.url)
    owner = await asyncpg.connect(world.database.owner_url)
    hook.otherwise = "slow"
    ids = []
    async with world.process(60), world.process(60):
        deadline = time.monotonic() + 60
        while await owner.fetchval(_TAKING) < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        for _ in range(10):
            ids += await world.record(*(revoked() for _ in range(10)))
            await hook.has(len(ids))
    await owner.close()
    assert hook.ids == ids
    assert hook.most_at_once == 1


async def test_a_lease_that_was_lost_moves_no_cursor(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    await world.record(revoked(), revoked(), revoked())
    owner = await asyncpg.connect(world.database.owner_url)
    hook.answers.append("waits")
    async with world.delivering():
        await hook.has(1)
        await owner.execute(
            "UPDATE control.webhooks SET taker = gen_random_uuid(), lease_until = now() + interval '1 h'"
        )
        hook.go_on.set()
        await hook.until(lambda: hook.running == 0)
        await world.record(revoked())
    await owner.close()
    row = await world.listed(added.id)
    assert (row["told_to"], len(hook.deliveries)) == (0, 1)


async def test_what_says_that_it_is_gone_is_disabled_and_says_why(world: World, hook: Receiver) -> None:
    await world.record(completed())
    added = await world.add(hook.url)
    hook.otherwise = 410
    await world.record(completed(), revoked(), revoked())
    async with world.delivering():
        row = await world.until(added.id, lambda row: row["disabled_at"] is not None)
        await world.record(revoked())
    assert len(hook.deliveries) == 1
    assert (row["disabled_because"], row["last_failure"], row["next_try_at"]) == ("gone", "it answered 410", None)
    gone = WebhookDisabled(webhook_id=added.id, reason="gone", detail="it answered 410", undelivered=3)
    assert await world.disabled() == [gone]
    answer = await (await world.deliveries()).test(world.tenant, added.id)
    assert answer.failure is not None
    assert "disabled" in answer.failure


async def test_it_is_given_up_after_so_many_failures_and_not_before(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    hook.otherwise = 500
    (event,) = await world.record(revoked())
    async with world.delivering():
        row = await world.until(added.id, lambda row: row["disabled_at"] is not None)
    assert hook.ids == [event] * (len(SOON) + 1)
    assert (row["disabled_because"], row["failures"]) == ("gave_up", len(SOON) + 1)
    assert [one.reason for one in await world.disabled()] == ["gave_up"]
    owner = await asyncpg.connect(world.database.owner_url)
    assert await owner.fetchval("SELECT sealed FROM control.webhooks") is None
    await owner.close()


def test_tries_go_on_for_three_days() -> None:
    assert 3 * 86_400 <= sum(PAUSES_S) <= 4 * 86_400
    assert list(PAUSES_S) == sorted(PAUSES_S)


async def test_it_is_left_alone_for_as_long_as_it_asks(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    hook.otherwise = "429 Slowly\r\nRetry-After: 7200"
    await world.record(revoked())
    async with world.delivering():
        row = await world.until(added.id, lambda row: row["failures"] == 1)
    assert 7000 < row["next_try_at"].timestamp() - time.time() < 7300


async def test_under_another_master_key_nothing_is_sent_and_the_reason_is_shown(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    await world.record(revoked())
    world.key, former = secrets.token_hex(32), world.key
    async with world.delivering(pauses_s=(0.01, 3600)):
        row = await world.until(added.id, lambda row: row["failures"] == 2)
    assert "security.master_key" in row["last_failure"]
    assert former not in row["last_failure"]
    assert hook.deliveries == []


async def test_a_removed_one_is_told_of_nothing_more(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    hook.answers.append("waits")
    await world.record(revoked(), revoked())
    async with world.delivering():
        await hook.has(1)
        await (await world.webhooks).remove(world.tenant, added.id, actor="key:me")
        hook.go_on.set()
        await hook.until(lambda: hook.running == 0)
        other = await world.add(hook.url)
        await world.record(revoked())
        await hook.has(2)
    assert hook.deliveries[1].is_signed_with(other.secret)


async def test_a_test_is_one_signed_event_that_is_in_no_log(world: World, hook: Receiver) -> None:
    added = await world.add(hook.url)
    deliveries = await world.deliveries()
    assert await deliveries.test(world.tenant, added.id) == (204, None, 0.0)
    (sent,) = hook.deliveries
    assert sent.is_signed_with(added.secret)
    assert (sent.event["type"], sent.event["subject"]) == ("webhook.test.v1", f"webhook:{added.id}")
    hook.answers.append(500)
    assert (await deliveries.test(world.tenant, added.id)).failure == "it answered 500"
    assert (await world.listed(added.id))["failures"] == 0
    with pytest.raises(NoSuchWebhook):
        await deliveries.test(new_id(), added.id)


async def test_many_lines_that_nobody_chose_are_passed_by(
    world: World, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("command_api.webhook_delivery._WINDOW", 7)
    added = await world.add(hook.url)
    await world.record(*(completed() for _ in range(40)))
    (event,) = await world.record(revoked())
    await world.record(*(completed() for _ in range(40)))
    async with world.delivering():
        await world.until(added.id, lambda row: row["told_to"] == 81)
    assert hook.ids == [event]
