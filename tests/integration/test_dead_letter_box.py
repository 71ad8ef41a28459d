"""Operators and dead letters, on the real bus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.ports.bus import Message, Mode, Position
from backplane.ports.dead_letters import dead_letter
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from cli.dead_letter_box import DeadLetter, DeadLetterBox
from cli.failures import CommandError
from event_schemas.chat import ChatMessage
from event_schemas.codec import decode, encode
from event_schemas.envelope import Envelope
from event_schemas.generation import Parameters, PromptContent, SubmitPrompt
from event_schemas.topics import commands, dead_letters
from tests.conftest import TestDatabase

TOPIC = commands("local")
SECRET = "what a person wrote"
KEY = DataKey(b"k" * 32, "conversation/of these tests")


@pytest.fixture
async def bus(database: TestDatabase) -> AsyncIterator[PostgresBus]:
    made = PostgresBus(database.owner_url, retention=timedelta(hours=1))
    await made.create_topics([TOPIC, dead_letters(TOPIC)], partitions=2)
    yield made
    await made.close()


@pytest.fixture
def box(bus: PostgresBus) -> DeadLetterBox:
    return DeadLetterBox(bus, [dead_letters(TOPIC)])


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
    with pytest.raises(CommandError, match="there is no dead letter 'x'"):
        await box.find("x")


async def test_what_is_discarded_is_gone_and_the_others_stay(bus: PostgresBus, box: DeadLetterBox) -> None:
    await set_aside(bus, b"one")
    await set_aside(bus, b"two")
    first, second = await box.waiting()
    await box.discard(first.id)
    assert [letter.id for letter in await box.waiting()] == [second.id]


async def test_a_prompt_is_replayed_as_a_new_generation(bus: PostgresBus, box: DeadLetterBox) -> None:
    before = prompt()
    await set_aside(bus, encode(before), "attempts_exhausted")
    (letter,) = await box.waiting()
    subject = await box.replay(letter.id)
    message = await consumed(bus)
    after = decode(message.payload)
    assert isinstance(after.data, SubmitPrompt)
    assert subject == f"generation:{after.data.generation_id}"
    assert after.data.generation_id != before.data.generation_id
    assert after.data.model_copy(update={"generation_id": before.data.generation_id}) == before.data
    assert (after.correlationid, after.causationid, after.actor) == (before.id, before.id, "operator")
    assert after.id != before.id
    assert dict(message.properties) == {"kept": "yes"}
    assert await box.waiting() == []


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
    with pytest.raises(CommandError, match="upgrade, or discard it"):
        await box.replay(letter.id)
    assert [each.id for each in await box.waiting()] == [letter.id]
    assert sum(await bus.backlog(TOPIC, "workers")) == 0


def test_ids_name_topic_and_position() -> None:
    letter = DeadLetter(Message("t-dlq", 3, Position(0, 42), None, b"{}"))
    assert (letter.id, letter.reason) == ("t-dlq:3:0:42", "unknown")
