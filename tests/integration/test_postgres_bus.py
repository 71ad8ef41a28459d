"""What only the Postgres bus can get wrong. What every bus must do is in tests/contract/bus."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres_bus import PostgresBus
from backplane.adapters.postgres_bus.assignment import quota
from backplane.ports.bus import BusError, BusUnavailable, Mode, Start, UnknownTopic
from backplane.ports.identifiers import new_id
from tests.conftest import TestDatabase
from tests.contract.bus.harness import collect, eventually, nothing_comes, payloads

TOPIC = "t"


@pytest.fixture
async def bus(database: TestDatabase) -> AsyncIterator[PostgresBus]:
    made = PostgresBus(database.role_url("worker"), lease_s=0.7)
    await made.create_topics([TOPIC], partitions=2)
    yield made
    await made.close()


@pytest.fixture
async def owner(database: TestDatabase) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database.owner_url)
    yield connection
    await connection.close()


async def publish_in(connection: asyncpg.Connection[asyncpg.Record], payload: bytes, partition: int = 0) -> None:
    """Publish in the transaction that is open on ``connection``, as a slow publisher would."""
    topic_id = await connection.fetchval("SELECT topic_id FROM bus.topics WHERE name = $1", TOPIC)
    await connection.fetch(
        "SELECT * FROM bus.publish($1, $2, $3, $4, $5)", topic_id, [partition], [None], [payload], [None]
    )


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
async def test_a_reader_never_skips_what_commits_late(
    bus: PostgresBus, owner: asyncpg.Connection[asyncpg.Record], mode: Mode
) -> None:
    consumer = await bus.subscribe([TOPIC], "s", mode, prefetch=10)
    slow = owner.transaction()
    await slow.start()
    await publish_in(owner, b"first, commits last")
    behind = asyncio.create_task(bus.publish(TOPIC, b"second", partition=0))
    await nothing_comes(consumer)
    assert not behind.done(), "the head was not locked"
    assert await bus.heads(TOPIC) == [None, None]
    await slow.commit()
    assert (await behind).entry == 2
    assert payloads(await collect(consumer, 2)) == [b"first, commits last", b"second"]


async def test_a_publisher_that_rolls_back_leaves_no_gap(
    bus: PostgresBus, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    slow = owner.transaction()
    await slow.start()
    await publish_in(owner, b"never")
    behind = asyncio.create_task(bus.publish(TOPIC, b"only", partition=0))
    await slow.rollback()
    assert (await behind).entry == 1
    assert payloads(await bus.read(TOPIC, 0, after=None, limit=10)) == [b"only"]


async def test_a_transaction_held_open_elsewhere_stops_nothing(
    bus: PostgresBus, database: TestDatabase, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    reader = await asyncpg.connect(database.owner_url)
    await reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM bus.messages")
    await owner.execute("BEGIN; CREATE TABLE public.rebuilt (i integer); INSERT INTO public.rebuilt VALUES (1)")
    try:
        shared = await bus.subscribe([TOPIC], "shared", Mode.SHARED, prefetch=10)
        failover = await bus.subscribe([TOPIC], "failover", Mode.FAILOVER, prefetch=10)
        for number in range(20):
            await bus.publish(TOPIC, str(number).encode(), partition=0)
        expected = [str(number).encode() for number in range(20)]
        assert payloads(await collect(shared, 20)) == expected
        assert payloads(await collect(failover, 20)) == expected
        # It reads the old messages, so they cannot be dropped now; but that must not hold anybody up either.
        assert await bus.maintain(datetime.now(UTC) + timedelta(days=9)) == 0
        await bus.create_topics(["another"], partitions=1)
        await bus.publish("another", b"x")
        assert await bus.backlog(TOPIC, "shared") == [0, 0]
    finally:
        await reader.close()
    assert await bus.maintain(datetime.now(UTC) + timedelta(days=9)) > 0


async def leaves(connection: asyncpg.Connection[asyncpg.Record], topic: str) -> set[str]:
    rows = await connection.fetch(
        "SELECT d.day::text FROM bus.days() d JOIN bus.topics t USING (topic_id) WHERE t.name = $1", topic
    )
    return {row["day"] for row in rows}


async def test_retention_drops_what_everybody_has_read_and_keeps_what_somebody_has_not(
    bus: PostgresBus, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    dead_letters = f"{TOPIC}-dlq"
    await bus.create_topics([dead_letters], partitions=1)
    await bus.ensure_subscription([dead_letters], "operators", Start.EARLIEST)
    shared = await bus.subscribe([TOPIC], "shared", Mode.SHARED, prefetch=10)
    failover = await bus.subscribe([TOPIC], "failover", Mode.FAILOVER, prefetch=10)
    for number in range(6):
        await bus.publish(TOPIC, str(number).encode(), partition=number % 2)
    await bus.publish(dead_letters, b"poison")
    published_on = await leaves(owner, TOPIC)
    later = datetime.now(UTC) + timedelta(days=5)

    await collect(failover, 6)
    held = await collect(shared, 6, ack=False)
    await shared.ack(*held[1:])
    await bus.maintain(later)
    assert payloads(await bus.read(TOPIC, held[0].partition, after=None, limit=10)), "one is not acknowledged"

    await shared.ack(held[0])
    await bus.maintain(datetime.now(UTC))
    assert payloads(await bus.read(TOPIC, 0, after=None, limit=10)) == [b"0", b"2", b"4"], "not old enough"

    assert await bus.maintain(later) >= 1
    assert not published_on & await leaves(owner, TOPIC)
    assert await leaves(owner, TOPIC) == {str(later.date()), str(later.date() + timedelta(days=1))}
    assert await bus.read(TOPIC, 0, after=None, limit=10) == []
    assert await owner.fetchval("SELECT count(*) FROM bus.deliveries") == 0

    assert payloads(await bus.read(dead_letters, 0, after=None, limit=10)) == [b"poison"], "nobody has dealt with it"
    operators = await bus.subscribe([dead_letters], "operators", Mode.SHARED, prefetch=1)
    await collect(operators, 1)
    await bus.maintain(later)
    assert await bus.read(dead_letters, 0, after=None, limit=10) == []


async def test_positions_go_on_after_retention_and_nobody_notices(
    bus: PostgresBus, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    consumer = await bus.subscribe([TOPIC], "s", Mode.FAILOVER, prefetch=10)
    for _ in range(3):
        await bus.publish(TOPIC, b"old", partition=0)
    await collect(consumer, 3)
    assert await bus.maintain(datetime.now(UTC) + timedelta(days=5)) >= 1
    assert [head and head.entry for head in await bus.heads(TOPIC)] == [3, None]
    # Today's table is gone too: the publisher makes it anew.
    assert (await bus.publish(TOPIC, b"new", partition=0)).entry == 4
    assert payloads(await collect(consumer, 1)) == [b"new"]
    late = await bus.subscribe([TOPIC], "late", Mode.SHARED, prefetch=10)
    assert payloads(await collect(late, 1)) == [b"new"]
    assert await bus.backlog(TOPIC, "s") == await bus.backlog(TOPIC, "late") == [0, 0]
    assert await bus.backlog(TOPIC, "nobody") == [1, 0]


async def test_progress_is_tidied(bus: PostgresBus, owner: asyncpg.Connection[asyncpg.Record]) -> None:
    consumer = await bus.subscribe([TOPIC], "s", Mode.SHARED, prefetch=1)
    for _ in range(20):
        await bus.publish(TOPIC, b"x", partition=0)
        await collect(consumer, 1)

    async def tidy() -> bool:
        return bool(await owner.fetchval("SELECT count(*) = 2 FROM bus.progress"))

    await eventually(tidy)
    assert await bus.backlog(TOPIC, "s") == [0, 0]


@pytest.mark.parametrize("role", ["command_api", "query_api"])
async def test_the_apis_publish_and_count_and_read_nothing(bus: PostgresBus, database: TestDatabase, role: str) -> None:
    position = await bus.publish(TOPIC, b"somebody's", partition=0)
    of_api = PostgresBus(database.role_url(role))
    try:
        assert await of_api.publish(TOPIC, b"x", partition=0) > position
        assert await of_api.backlog(TOPIC, "s") == await bus.backlog(TOPIC, "s") == [2, 0]
        assert await of_api.heads(TOPIC) == await bus.heads(TOPIC)
        for refused in (
            of_api.read(TOPIC, 0, after=None, limit=1),
            of_api.subscribe([TOPIC], "s", Mode.SHARED, prefetch=1),
            of_api.create_topics(["two"], partitions=1),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await refused
    finally:
        await of_api.close()


@pytest.mark.parametrize("role", ["worker", "projections"])
async def test_who_consumes_may_use_the_bus_and_nothing_else_of_it(database: TestDatabase, role: str) -> None:
    bus = PostgresBus(database.role_url(role))
    try:
        await bus.create_topics(["one"], partitions=1)
        for mode in Mode:
            consumer = await bus.subscribe(["one"], mode.value, mode, prefetch=1)
            await bus.publish("one", b"x")
            [message, *_] = await collect(consumer, 1, ack=False)
            await consumer.nack(message)
            await collect(consumer, 1)
        await bus.maintain()
    finally:
        await bus.close()
    connection = await asyncpg.connect(database.role_url(role))
    try:
        for sql in ("DELETE FROM bus.messages", "UPDATE bus.messages SET payload = ''", "DROP TABLE bus.messages_1"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
    finally:
        await connection.close()


async def test_a_read_only_server_is_unavailable(
    database: TestDatabase, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    setup = PostgresBus(database.owner_url)
    await setup.create_topics([TOPIC], partitions=1)
    await setup.close()
    await owner.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    bus = PostgresBus(database.role_url("worker"))
    try:
        with pytest.raises(BusUnavailable, match="ReadOnly"):
            await bus.publish(TOPIC, b"secret words")
        with pytest.raises(BusUnavailable):
            await bus.ensure_subscription([TOPIC], "s", Start.EARLIEST)
        await bus.ping()
    finally:
        await bus.close()


async def test_a_full_disk_is_unavailable_and_passes(
    bus: PostgresBus, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await owner.execute("""
        CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON bus.messages FOR EACH ROW EXECUTE FUNCTION public.full_disk();
    """)
    with pytest.raises(BusUnavailable, match="DiskFull") as caught:
        await bus.publish(TOPIC, b"secret words")
    assert "secret" not in str(caught.value)
    await owner.execute("DROP TRIGGER full_disk ON bus.messages")
    assert (await bus.publish(TOPIC, b"x", partition=0)).entry == 1


async def test_no_server_is_unavailable(tmp_path: object) -> None:
    bus = PostgresBus(f"postgresql://nobody@/none?host={tmp_path}", timeout_s=2)
    with pytest.raises(BusUnavailable):
        await bus.ping()
    with pytest.raises(BusUnavailable):
        await bus.publish(TOPIC, b"x")
    await bus.close()


async def test_a_database_without_the_bus_says_what_to_do(
    database: TestDatabase, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await owner.execute("DROP SCHEMA bus CASCADE")
    bus = PostgresBus(database.owner_url)
    try:
        with pytest.raises(UnknownTopic, match="parley migrate"):
            await bus.publish(TOPIC, b"x")
    finally:
        await bus.close()


async def test_a_partition_that_is_not_there_is_refused(bus: PostgresBus) -> None:
    with pytest.raises(ValueError, match="partitions 0 to 1, not 2"):
        await bus.publish(TOPIC, b"x", partition=2)


async def test_a_subscription_has_one_mode(bus: PostgresBus) -> None:
    await bus.subscribe([TOPIC], "s", Mode.SHARED, prefetch=1)
    with pytest.raises(BusError, match="other mode"):
        await bus.subscribe([TOPIC], "s", Mode.FAILOVER, prefetch=1)


async def test_without_a_notification_polling_finds_messages(
    bus: PostgresBus, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    consumer = await bus.subscribe([TOPIC], "s", Mode.SHARED, prefetch=1)
    waiting = asyncio.create_task(collect(consumer, 1))
    await owner.execute("INSERT INTO bus.messages SELECT topic_id, 0, 1, now(), NULL, 'x', NULL FROM bus.topics")
    assert payloads(await waiting) == [b"x"]


async def test_the_listening_connection_is_made_again(
    bus: PostgresBus, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    async def listeners() -> set[int]:
        rows = await owner.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        )
        return {row["pid"] for row in rows}

    consumer = await bus.subscribe([TOPIC], "s", Mode.SHARED, prefetch=1)
    [before] = await listeners()
    waiting = asyncio.create_task(collect(consumer, 1))
    await owner.execute("SELECT pg_terminate_backend($1)", before)

    async def listens_again() -> bool:
        return bool(await listeners() - {before})

    await eventually(listens_again)
    await bus.publish(TOPIC, b"x")
    assert payloads(await waiting) == [b"x"]


async def test_acks_of_a_buried_shared_consumer_are_dropped_and_it_joins_again(
    bus: PostgresBus, database: TestDatabase, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    consumer = await bus.subscribe([TOPIC], "s", Mode.SHARED, prefetch=10)
    await bus.publish(TOPIC, b"x", partition=0)
    [stale] = await collect(consumer, 1, ack=False)
    [member] = await owner.fetch("SELECT consumer_id FROM bus.consumers")
    other_bus = PostgresBus(database.role_url("worker"), lease_s=0.7)
    try:
        other = await other_bus.subscribe([TOPIC], "s", Mode.SHARED, prefetch=10)
        waiting = asyncio.create_task(collect(other, 1, ack=False))
        await owner.execute("SELECT bus.leave(ARRAY[$1::uuid])", member["consumer_id"])
        [moved] = await waiting
        await consumer.ack(stale)
        assert await bus.backlog(TOPIC, "s") == [1, 0], "somebody else has it"
        await other.ack(moved)
        await bus.publish(TOPIC, b"y")
        assert payloads(await collect(consumer, 1)) == [b"y"]
    finally:
        await other_bus.close()


async def test_acks_of_a_fenced_failover_consumer_are_dropped(
    bus: PostgresBus, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    consumer = await bus.subscribe([TOPIC], "s", Mode.FAILOVER, prefetch=10)
    await bus.publish(TOPIC, b"x", partition=0)
    [stale] = await collect(consumer, 1, ack=False)
    # Somebody else's: what is nobody's would soon be its own again.
    await owner.execute("UPDATE bus.cursors SET owner_id = $1", new_id())
    await consumer.ack(stale)
    assert await bus.backlog(TOPIC, "s") == [1, 0]
    await owner.execute("UPDATE bus.cursors SET owner_id = NULL")
    assert payloads(await collect(consumer, 1)) == [b"x"]
    assert await bus.backlog(TOPIC, "s") == [0, 0]


async def test_what_was_dealt_in_a_lost_reply_comes_back(
    bus: PostgresBus, database: TestDatabase, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    consumer = await bus.subscribe([TOPIC], "s", Mode.SHARED, prefetch=1)
    await bus.publish(TOPIC, b"held")
    [held] = await collect(consumer, 1, ack=False)
    await bus.publish(TOPIC, b"lost")
    # The server deals a message to the consumer, which never hears of it; then the connections break.
    [member] = await owner.fetch("SELECT consumer_id, subscription_id FROM bus.members")
    dealt = await owner.fetch(
        "SELECT payload FROM bus.take($1, 1, ARRAY[$2::int], ARRAY[$2::int, $2::int], '{0,1}') WHERE state = 'message'",
        member["consumer_id"],
        member["subscription_id"],
    )
    assert [row["payload"] for row in dealt] == [b"lost"]
    waiting = asyncio.create_task(collect(consumer, 1))
    locker = await asyncpg.connect(database.owner_url)
    await locker.execute("BEGIN; LOCK TABLE bus.consumers")

    async def takes() -> list[int]:
        return [
            row["pid"]
            for row in await owner.fetch(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE '%bus.take%' AND wait_event_type = 'Lock'"
            )
        ]

    async def one_waits() -> bool:
        await bus.publish(TOPIC, b"wake", partition=0)
        return bool(await takes())

    await eventually(one_waits)
    for pid in await takes():
        await owner.execute("SELECT pg_terminate_backend($1)", pid)
    await locker.close()
    await waiting
    got = {*payloads(waiting.result())}
    while b"lost" not in got:
        got |= {*payloads(await collect(consumer, 1))}
    await consumer.ack(held)

    async def drained() -> bool:
        return sum(await bus.backlog(TOPIC, "s")) == 0

    draining = asyncio.create_task(collect(consumer, 10**6))
    await eventually(drained)
    draining.cancel()
    await asyncio.wait([draining])


async def test_publishers_in_several_processes_give_each_entry_once(bus: PostgresBus, database: TestDatabase) -> None:
    others = [PostgresBus(database.role_url("command_api")) for _ in range(4)]
    try:
        positions = await asyncio.gather(
            *(other.publish(TOPIC, b"x", partition=n % 2) for n in range(50) for other in others)
        )
    finally:
        for other in others:
            await other.close()
    assert set(Counter(position.entry for position in positions).values()) == {2}
    assert await bus.backlog(TOPIC, "s") == [100, 100]


def test_quotas_add_up_whatever_the_members_own() -> None:
    members = [UUID(int=uuid.uuid4().int) for _ in range(5)]
    for partitions in (1, 4, 5, 13):
        for owned in ({}, {members[0]: partitions}, {members[1]: 1, members[2]: partitions - 1}):
            quotas = {member: quota(member, 7, members, owned, partitions) for member in members}
            assert sum(quotas.values()) == partitions
            assert max(quotas.values()) - min(quotas.values()) <= 1
            if owned:
                busiest = max(members, key=lambda member: owned.get(member, 0))
                assert quotas[busiest] == max(quotas.values()), "more moves than has to"
