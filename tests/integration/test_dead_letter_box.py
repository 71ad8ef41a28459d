"""Operators and dead letters, on the real bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.ports.bus import Message, Mode, Position, Start
from backplane.ports.dead_letters import OPERATORS, dead_letter
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from command_api.dead_letters import CannotReplay, DeadLetter, DeadLetterBox, HeldElsewhere, NoSuchLetter
from event_schemas.chat import ChatMessage
from event_schemas.codec import decode, encode
from event_schemas.dead_letters import DeadLetterDiscarded, DeadLetterReplayed
from event_schemas.envelope import PLATFORM, Envelope
from event_schemas.generation import Parameters, PromptContent, SubmitPrompt
from event_schemas.payload import Payload
from event_schemas.topics import EVENTS, commands, dead_letters
from tests.conftest import TestDatabase

TOPIC = commands("local")
SECRET = "what a person wrote"
KEY = DataKey(b"k" * 32, "conversation/of these tests")


@pytest.fixture
async def bus(database: TestDatabase) -> AsyncIterator[PostgresBus]:
    made = PostgresBus(database.owner_url, retention=timedelta(hours=1))
    await made.create_topics([TOPIC, dead_letters(TOPIC), EVENTS], partitions=2)
    await made.ensure_subscription([dead_letters(TOPIC)], OPERATORS, Start.EARLIEST)
    yield made
    await made.close()


@pytest.fixture
async def relays_bus(database: TestDatabase, bus: PostgresBus) -> AsyncIterator[PostgresBus]:
    """With the rights that the command API has."""
    made = PostgresBus(database.role_url("relay"))
    yield made
    await made.close()


@pytest.fixture
def box(relays_bus: PostgresBus) -> DeadLetterBox:
    return DeadLetterBox(relays_bus, [dead_letters(TOPIC)])


def prompt(*, keeps_content: bool = True) -> Envelope[SubmitPrompt]:
    data = SubmitPrompt(
        generation_id=new_id(),
        conversation_id=new_id(),
        parent_message_id=None,
        input_message_ids=(new_id(),),
        roles=("user",),
        input_tokens=4,
        user_id=None,
        key_id=new_id(),
        model="script",
        pool="local",
        parameters=Parameters(),
        content=KEY.seal(PromptContent(messages=(ChatMessage(role="user", content=SECRET),))),
        keeps_content=keeps_content,
    )
    return Envelope.first(data, id=new_id(), source="/test", tenant_id=new_id(), actor="key:1")


async def consumed(bus: PostgresBus, subscription: str = "workers") -> Message:
    consumer = await bus.subscribe([TOPIC], subscription, Mode.SHARED, prefetch=1)
    (message,) = await consumer.receive()
    await consumer.ack(message)
    await consumer.close()
    return message


async def set_aside(bus: PostgresBus, payload: bytes, reason: str = "not JSON") -> None:
    await bus.publish(TOPIC, payload, key="k", properties={"kept": "yes"})
    await dead_letter(bus, await consumed(bus), reason)


async def told(bus: PostgresBus) -> list[tuple[Payload, str]]:
    """What stands in the platform's log of it, and who did it."""
    found = []
    for partition in range(2):
        for message in await bus.read(EVENTS, partition, after=None, limit=100):
            envelope = decode(message.payload)
            assert (envelope.tenantid, message.key) == (PLATFORM, str(PLATFORM))
            found.append((envelope.data, envelope.actor))
    return found


async def test_what_was_set_aside_is_listed_without_what_people_wrote(bus: PostgresBus, box: DeadLetterBox) -> None:
    await set_aside(bus, b"\xff not JSON")
    await set_aside(bus, encode(prompt()), "attempts_exhausted")
    letters = await box.waiting()
    assert sorted(letter.reason for letter in letters) == ["attempts_exhausted", "not JSON"]
    assert {letter.topic for letter in letters} == {TOPIC}
    assert not any(SECRET in str(letter.about()) for letter in letters)
    assert [letter.id for letter in await box.waiting()] == [letter.id for letter in letters]


async def test_one_is_found_by_its_id(bus: PostgresBus, box: DeadLetterBox) -> None:
    await set_aside(bus, b"not JSON")
    (letter,) = await box.waiting()
    assert (await box.find(letter.id)).message.payload == b"not JSON"
    with pytest.raises(NoSuchLetter, match="there is no dead letter 'x'"):
        await box.find("x")
    assert await told(bus) == []


async def test_what_another_process_holds_is_not_said_to_be_gone(bus: PostgresBus, box: DeadLetterBox) -> None:
    await set_aside(bus, b"not JSON")
    (letter,) = await box.waiting()
    other = await bus.subscribe([dead_letters(TOPIC)], OPERATORS, Mode.SHARED, prefetch=1)
    await other.receive()
    with pytest.raises(HeldElsewhere, match="try again"):
        await box.find(letter.id)
    await other.close()
    assert (await box.find(letter.id)).id == letter.id


async def test_many_may_look_at_once(bus: PostgresBus, box: DeadLetterBox) -> None:
    for _ in range(3):
        await set_aside(bus, b"not JSON")
    assert [len(letters) for letters in await asyncio.gather(*[box.waiting() for _ in range(4)])] == [3] * 4


async def test_what_is_discarded_is_gone_and_the_others_stay(bus: PostgresBus, box: DeadLetterBox) -> None:
    await set_aside(bus, b"one")
    await set_aside(bus, b"two")
    first, second = await box.waiting()
    await box.discard(first.id)
    assert [letter.id for letter in await box.waiting()] == [second.id]
    facts = {"letter_id": first.id, "topic": TOPIC, "reason": "not JSON"}
    assert await told(bus) == [(DeadLetterDiscarded.model_validate(facts), "operator")]


async def test_a_prompt_is_replayed_as_a_new_generation_and_is_no_line_of_a_batch_any_more(
    bus: PostgresBus, box: DeadLetterBox
) -> None:
    alone = prompt()
    before = alone.model_copy(update={"data": alone.data.model_copy(update={"batch_id": new_id(), "batch_line": 3})})
    await set_aside(bus, encode(before), "attempts_exhausted")
    (letter,) = await box.waiting()
    assert letter.tenant_id == before.tenantid
    subject = await box.replay(letter.id, actor="key:2")
    message = await consumed(bus)
    after = decode(message.payload)
    assert isinstance(after.data, SubmitPrompt)
    assert subject == f"generation:{after.data.generation_id}"
    assert after.data.generation_id != before.data.generation_id
    assert after.data.model_copy(update={"generation_id": alone.data.generation_id}) == alone.data
    assert (after.correlationid, after.causationid, after.actor) == (before.id, before.id, "key:2")
    assert after.id != before.id
    assert dict(message.properties) == {"kept": "yes"}
    assert await box.waiting() == []
    facts = {"letter_id": letter.id, "topic": TOPIC, "reason": "attempts_exhausted", "of_tenant_id": before.tenantid}
    assert await told(bus) == [(DeadLetterReplayed.model_validate(facts | {"replayed_as": subject}), "key:2")]


async def test_a_prompt_with_a_key_of_its_own_is_replayed_as_itself(bus: PostgresBus, box: DeadLetterBox) -> None:
    before = prompt(keeps_content=False)
    await set_aside(bus, encode(before), "attempts_exhausted")
    (letter,) = await box.waiting()
    await box.replay(letter.id)
    after = decode((await consumed(bus)).payload)
    assert after.data == before.data
    assert after.id != before.id


async def test_what_still_cannot_be_read_is_not_replayed(bus: PostgresBus, box: DeadLetterBox) -> None:
    await set_aside(bus, b"not JSON")
    (letter,) = await box.waiting()
    with pytest.raises(CannotReplay, match="upgrade, or discard it"):
        await box.replay(letter.id)
    assert [each.id for each in await box.waiting()] == [letter.id]
    assert sum(await bus.backlog(TOPIC, "workers")) == 0
    assert await told(bus) == []


async def test_nothing_is_replayed_to_a_topic_that_is_no_more(bus: PostgresBus, box: DeadLetterBox) -> None:
    properties = {"dead_letter_topic": commands("gone")}
    await bus.publish(dead_letters(TOPIC), encode(prompt()), properties=properties)
    (letter,) = await box.waiting()
    with pytest.raises(CannotReplay, match="there is no topic 'commands-gone'"):
        await box.replay(letter.id)
    assert [each.id for each in await box.waiting()] == [letter.id]


async def test_the_relays_role_sees_nothing_of_the_bus_but_dead_letters(
    database: TestDatabase, bus: PostgresBus, box: DeadLetterBox
) -> None:
    await set_aside(bus, b"not JSON")
    await bus.publish(TOPIC, b"live")
    live = await bus.subscribe([TOPIC], "workers", Mode.SHARED, prefetch=1)
    await live.receive()
    waiting = await bus.subscribe([dead_letters(TOPIC)], "others", Mode.SHARED, prefetch=1)
    await waiting.receive()
    connection = await asyncpg.connect(database.role_url("relay"))
    try:
        assert [row[0] for row in await connection.fetch("SELECT payload FROM bus.messages")] == [b"not JSON"]
        (subscription,) = await connection.fetch("SELECT subscription_id, name FROM bus.subscriptions")
        assert subscription["name"] == OPERATORS
        for table in ("cursors", "progress"):
            rows = await connection.fetch(f"SELECT DISTINCT subscription_id FROM bus.{table}")
            assert [row[0] for row in rows] == [subscription["subscription_id"]], table
        for table in ("members", "deliveries", "consumers"):
            assert await connection.fetch(f"SELECT * FROM bus.{table}") == [], table
            owners = PostgresDatabase(database.owner_url, pool_size=1)
            assert await owners.at_once(f"SELECT 1 FROM bus.{table}"), "others have something there"
            await owners.close()
        assert await connection.execute("DELETE FROM bus.deliveries") == "DELETE 0"
        assert await connection.execute("DELETE FROM bus.consumers") == "DELETE 0"
        for sql in (
            "INSERT INTO bus.messages SELECT * FROM bus.messages",
            "INSERT INTO bus.deliveries SELECT s + 1, 0, 1, NULL, now() FROM generate_series(0, 9) s",
            "INSERT INTO bus.subscriptions (topic_id, name) SELECT topic_id, 'mine' FROM bus.topics",
            "UPDATE bus.partitions SET dropped = 0",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(sql)
    finally:
        await connection.close()
    assert len(await box.waiting()) == 1


def test_ids_name_topic_and_position() -> None:
    letter = DeadLetter(Message("t-dlq", 3, Position(0, 42), None, b"{}"))
    assert (letter.id, letter.reason) == ("t-dlq:3:0:42", "unknown")
