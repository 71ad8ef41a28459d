"""The claim table decides. Real Postgres, by the database's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey, opened
from event_schemas.chat import AnswerContent, ChatMessage, ImagePart, ToolCall
from event_schemas.codec import decode, encode
from event_schemas.generation import Fallback, PromptContent, SubmitPrompt
from event_schemas.payload import Usage
from tests.conftest import TestDatabase
from tests.data_keys import DATA_KEYS
from tests.integration.prompts import FREE, SPARE, envelope, scripted, wish, written
from tests.integration.sealed_prompts import SealedPrompts
from workers.claims import Busy, Claimed, Claims, Elsewhere, Ended, Expired, Mine, Told
from workers.deltas import Deltas
from workers.facts import Facts, Timing
from workers.history import NotProjected, history
from workers.inference.port import Delta, ToolCallDelta
from workers.keyring import Keyring

TENANT = UUID("01990000-0000-7000-8000-00000000000a")


KEY = DataKey(b"k" * 32, "conversation/of these tests")


def answered(command: SubmitPrompt, text: str, attempt: int = 1, key: DataKey = KEY) -> bytes:
    deltas = Deltas()
    deltas.append(Delta(text))
    return encode(Facts(envelope(command, TENANT), command, "w", FREE).cancelled(attempt, deltas, key))


async def said(world: World, prompt: SubmitPrompt, tenant_id: UUID = TENANT) -> tuple[ChatMessage, ...]:
    content = opened(prompt.content, KEY, PromptContent)
    keys = Keyring(DATA_KEYS, tenant_id, {prompt.conversation_id: KEY})
    return (await history(world.database, keys, prompt, content)).without(0)


class World:
    def __init__(self, database: PostgresDatabase, owner: asyncpg.Connection) -> None:
        self.database = database
        self.owner = owner
        self.a = Claims(database, "a", lease_s=60)
        self.b = Claims(database, "b", lease_s=60)

    async def ask(self, claims: Claims, command: SubmitPrompt) -> object:
        return await claims.ask(TENANT, command, encode(envelope(command, TENANT)))

    async def expire(self, command: SubmitPrompt) -> None:
        await self.owner.execute(
            "UPDATE work.claims SET lease_until = now() - interval '1 s' WHERE generation_id = $1",
            command.generation_id,
        )

    async def outbox(self) -> int:
        count: int = await self.owner.fetchval("SELECT count(*) FROM control.outbox")
        return count


@pytest.fixture
async def world(database: TestDatabase) -> AsyncIterator[World]:
    adapter = PostgresDatabase(database.role_url("worker"), pool_size=4)
    owner = await asyncpg.connect(database.owner_url)
    yield World(adapter, owner)
    await owner.close()
    await adapter.close()


async def test_one_of_many_that_ask_at_once_gets_the_claim(world: World) -> None:
    command = scripted()
    answers = await asyncio.gather(*(world.ask(claims, command) for claims in (world.a, world.b) * 8))
    assert sorted(type(answer).__name__ for answer in answers if isinstance(answer, Claimed)) == ["Claimed"]
    assert all(isinstance(answer, (Claimed, Busy, Mine)) for answer in answers)


async def test_a_held_lease_is_mine_or_busy(world: World) -> None:
    command = scripted()
    assert await world.ask(world.a, command) == Claimed(1)
    assert isinstance(await world.ask(world.a, command), Mine)
    assert isinstance(await world.ask(world.b, command), Busy)


async def test_a_lost_attempt_is_taken_over_once_and_recorded_once(world: World) -> None:
    command = scripted()
    await world.ask(world.a, command)
    await world.expire(command)
    assert await world.ask(world.b, command) == Expired(1, False)
    lost = Facts(envelope(command, TENANT), command, "b", FREE).lost(1, 7)
    answers = await asyncio.gather(*(claims.take_over(TENANT, command, 1, lost) for claims in (world.a, world.b)))
    assert sorted(type(answer).__name__ for answer in answers) == ["Busy", "Claimed"]
    assert Claimed(2) in answers
    assert await world.outbox() == 1


async def test_the_attempt_is_the_fence(world: World) -> None:
    command = scripted()
    await world.ask(world.a, command)
    await world.expire(command)
    lost = Facts(envelope(command, TENANT), command, "b", FREE).lost(1, 0)
    await world.b.take_over(TENANT, command, 1, lost)
    assert not await world.a.end(TENANT, command.generation_id, 1, answered(command, "from a"))
    terminal = answered(command, "from b", 2)
    assert await world.b.end(TENANT, command.generation_id, 2, terminal)
    assert not await world.b.end(TENANT, command.generation_id, 2, terminal)
    assert await world.ask(world.a, command) == Ended(terminal)


async def test_a_conversation_runs_one_generation_at_a_time(world: World) -> None:
    first, second = scripted(), None
    second = scripted(conversation=first.conversation_id)
    assert await world.ask(world.a, first) == Claimed(1)
    assert isinstance(await world.ask(world.b, second), Busy)
    await world.a.end(TENANT, first.generation_id, 1, answered(first, "x"))
    assert await world.ask(world.b, second) == Claimed(1)


async def test_a_prompt_waits_for_what_it_answers_to(world: World) -> None:
    parent = scripted()
    child = scripted(conversation=parent.conversation_id, parent=parent.generation_id)
    assert isinstance(await world.ask(world.a, child), Busy)
    await world.ask(world.a, parent)
    assert isinstance(await world.ask(world.b, child), Busy)
    await world.a.end(TENANT, parent.generation_id, 1, answered(parent, "answer"))
    assert await world.ask(world.b, child) == Claimed(1)


async def test_history_is_read_from_claims_until_the_projection_has_it(world: World) -> None:
    parent = scripted(text="question")
    await world.ask(world.a, parent)
    await world.a.end(TENANT, parent.generation_id, 1, answered(parent, "answer"))
    child = scripted(conversation=parent.conversation_id, parent=parent.generation_id, text="next")
    told = await said(world, child)
    assert [(m.role, m.content) for m in told] == [("user", "question"), ("assistant", "answer"), ("user", "next")]
    again = scripted(conversation=parent.conversation_id, parent=parent.input_message_ids[0], text="instead")
    assert [m.content for m in await said(world, again)] == ["question", "instead"]


async def test_what_a_tool_was_asked_is_history_where_the_answer_was_completed(world: World) -> None:
    parent = scripted(text="question")
    await world.ask(world.a, parent)
    deltas = Deltas()
    deltas.append(ToolCallDelta(0, "{}", id="c1", name="look"))
    facts = Facts(envelope(parent, TENANT), parent, "w", FREE)
    used = Usage(input_tokens=1, output_tokens=1, source="provider")
    completed = facts.completed(1, "tool_calls", used, deltas, Timing(first_token_ms=1, duration_ms=1), KEY)
    await world.a.end(TENANT, parent.generation_id, 1, encode(completed))
    child = scripted(conversation=parent.conversation_id, parent=parent.generation_id, text="next")
    question, call, _ = await said(world, child)
    assert (question.text, call) == (
        "question",
        ChatMessage(role="assistant", content="", tool_calls=(ToolCall(id="c1", name="look", arguments="{}"),)),
    )

    cancelled = scripted(text="question")
    await world.ask(world.a, cancelled)
    await world.a.end(TENANT, cancelled.generation_id, 1, encode(facts.cancelled(1, deltas, KEY)))
    after = scripted(conversation=cancelled.conversation_id, parent=cancelled.generation_id, text="next")
    assert [(m.role, m.text) for m in await said(world, after)] == [
        ("user", "question"),
        ("user", "next"),
    ]


async def projected(
    world: World, prompt: SubmitPrompt, status: str, answer: AnswerContent | None, key: DataKey = KEY
) -> None:
    """As the projections store a generation that has ended."""
    content = opened(prompt.content, key, PromptContent)
    ids = (*prompt.input_message_ids, prompt.generation_id)
    parents = (prompt.parent_message_id, *prompt.input_message_ids)
    roles = (*(message.role for message in content.messages), "assistant")
    sealed = key.seal(content).model_dump_json()
    for ordinal, (id, parent, role) in enumerate(zip(ids, parents, roles, strict=True)):
        is_answer = id == prompt.generation_id
        await world.owner.execute(
            "INSERT INTO read_models.messages (tenant_id, id, conversation_id, generation_id, parent_message_id, role,"
            " status, attempt, ordinal, erased, prompt, answer)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, false, $9, $10)",
            *(TENANT, id, prompt.conversation_id, prompt.generation_id, parent, role),
            *(status if is_answer else "complete", ordinal, sealed if is_answer else None),
            key.seal(answer).model_dump_json() if is_answer and answer else None,
        )


def prompt_of(*messages: ChatMessage, after: SubmitPrompt | None = None) -> SubmitPrompt:
    conversation, parent = (None, None) if after is None else (after.conversation_id, after.generation_id)
    return scripted(conversation=conversation, parent=parent).model_copy(
        update={
            "content": written(PromptContent(messages=messages)),
            "input_message_ids": tuple(new_id() for _ in messages),
        }
    )


async def test_parts_and_tool_calls_are_read_from_the_projection(world: World) -> None:
    picture = ChatMessage(role="user", content=(ImagePart(url="https://example.com/a.png"),))
    call = ToolCall(id="c1", name="look", arguments="{}")
    result = ChatMessage(role="tool", content="", tool_call_id="c1")
    broken = ToolCall(id="c2", name="look", arguments="{")
    first = prompt_of(ChatMessage(role="system", content="be brief"), picture)
    second = prompt_of(result, after=first)
    third = prompt_of(after=second)
    await projected(world, first, "completed", AnswerContent(text="", delta_lengths=(), tool_calls=(call,)))
    await projected(world, second, "failed", AnswerContent(text="A cat", delta_lengths=(), tool_calls=(broken,)))
    await projected(world, third, "failed", None)
    following = scripted(conversation=first.conversation_id, parent=third.generation_id, text="next")
    assert await said(world, following) == (
        ChatMessage(role="system", content="be brief"),
        picture,
        ChatMessage(role="assistant", content="", tool_calls=(call,)),
        result,
        ChatMessage(role="assistant", content="A cat"),
        ChatMessage(role="user", content="next"),
    )
    instead = scripted(conversation=first.conversation_id, parent=first.input_message_ids[0], text="instead")
    assert [message.text for message in await said(world, instead)] == ["be brief", "instead"]


async def test_an_empty_system_message_takes_back_the_one_before(world: World) -> None:
    first = prompt_of(ChatMessage(role="system", content="be brief"), ChatMessage(role="user", content="a"))
    second = prompt_of(ChatMessage(role="system", content=""), ChatMessage(role="user", content="b"), after=first)
    for each in (first, second):
        await projected(world, each, "completed", AnswerContent(text="yes", delta_lengths=()))
    third = scripted(conversation=first.conversation_id, parent=second.generation_id, text="c")
    assert [message.text for message in await said(world, third)] == ["a", "yes", "b", "yes", "c"]
    before = scripted(conversation=first.conversation_id, parent=first.generation_id, text="c")
    assert [message.text for message in await said(world, before)] == ["be brief", "a", "yes", "c"]


async def test_what_was_sealed_by_a_key_that_is_gone_is_as_if_it_had_not_been_said(world: World) -> None:
    gone = DataKey(b"g" * 32, "conversation/of these tests")
    first = prompt_of(ChatMessage(role="user", content="erased"))
    await projected(world, first, "completed", AnswerContent(text="erased", delta_lengths=()), gone)
    second = scripted(conversation=first.conversation_id, parent=first.generation_id, text="erased, too")
    sealed = second.model_copy(update={"content": gone.seal(opened(second.content, None, PromptContent))})
    await world.ask(world.a, sealed)
    await world.a.end(TENANT, second.generation_id, 1, answered(second, "erased", key=gone))
    child = scripted(conversation=first.conversation_id, parent=second.generation_id, text="next")
    content = opened(child.content, None, PromptContent)
    for key in (KEY, None):
        keys = Keyring(DATA_KEYS, TENANT, {child.conversation_id: key})
        told = await history(world.database, keys, child, content)
        assert [message.text for message in told.without(0)] == ["next"]
    keys = Keyring(DATA_KEYS, TENANT, {child.conversation_id: gone})
    told = await history(world.database, keys, child, content)
    assert [message.text for message in told.without(0)] == ["erased", "erased", "erased, too", "erased", "next"]


async def test_what_is_made_beside_a_conversation_keeps_nobody_waiting(world: World) -> None:
    command = scripted()
    title = scripted(conversation=command.conversation_id).model_copy(update={"purpose": "title"})
    summary = scripted(conversation=command.conversation_id).model_copy(update={"purpose": "summary"})
    for one in (title, command, summary):
        assert await world.ask(world.a, one) == Claimed(1)
    assert isinstance(await world.ask(world.b, scripted(conversation=command.conversation_id)), Busy)


async def test_what_an_end_leads_to_is_in_the_outbox_with_it_and_not_without_it(world: World) -> None:
    command = scripted()
    await world.ask(world.a, command)
    terminal = answered(command, "answer")
    follows = envelope(scripted(), TENANT)
    assert not await world.b.end(TENANT, command.generation_id, 1, terminal, follows)
    assert await world.owner.fetch("SELECT envelope FROM control.outbox") == []
    assert await world.a.end(TENANT, command.generation_id, 1, terminal, follows)
    assert not await world.a.end(TENANT, command.generation_id, 1, terminal, follows)
    (row,) = await world.owner.fetch("SELECT envelope FROM control.outbox")
    assert decode(row["envelope"]).id == follows.id


async def test_history_does_not_invent_what_nobody_has(world: World) -> None:
    with pytest.raises(NotProjected):
        await said(world, scripted(parent=new_id()))


async def test_another_tenant_sees_no_claimed_history(world: World) -> None:
    parent = scripted(text="secret")
    await world.ask(world.a, parent)
    await world.a.end(TENANT, parent.generation_id, 1, answered(parent, "answer"))
    with pytest.raises(NotProjected):
        await said(world, scripted(parent=parent.generation_id), new_id())


async def test_cancel_ends_at_once_what_never_began(world: World) -> None:
    command = scripted()
    terminal = encode(Facts(envelope(command, TENANT), wish(command), "a", FREE).cancelled(0, None))
    assert await world.a.cancel(TENANT, wish(command), terminal) == Ended(terminal)
    assert await world.ask(world.b, command) == Ended(terminal)
    other = encode(Facts(envelope(command, TENANT), wish(command), "b", FREE).cancelled(0, None))
    assert await world.b.cancel(TENANT, wish(command), other) == Ended(terminal)


async def test_cancel_tells_the_worker_by_its_heartbeat(world: World) -> None:
    command = scripted()
    await world.ask(world.a, command)
    assert await world.a.heartbeat() == {command.generation_id: False}
    assert isinstance(await world.b.cancel(TENANT, wish(command), b""), Told)
    assert await world.a.heartbeat() == {command.generation_id: True}
    assert await world.b.heartbeat() == {}


async def test_what_nobody_runs_any_more_ends_as_an_attempt_that_never_ran(world: World) -> None:
    command = scripted()
    await world.ask(world.a, command)
    await world.expire(command)
    assert await world.b.cancel(TENANT, wish(command), b"") == Expired(1, True)
    facts = Facts(envelope(command, TENANT), command, "b", FREE)
    terminal = encode(facts.cancelled(2, None))
    assert await world.b.end_lost(TENANT, command.generation_id, 1, terminal, facts.lost(1, 3))
    assert not await world.b.end_lost(TENANT, command.generation_id, 1, terminal, facts.lost(1, 3))
    assert await world.outbox() == 1
    assert not await world.a.end(TENANT, command.generation_id, 1, terminal)


async def test_a_released_claim_can_be_had_at_once(world: World) -> None:
    command = scripted()
    await world.ask(world.a, command)
    await world.b.release([command.generation_id])
    assert isinstance(await world.ask(world.b, command), Busy)
    await world.a.release([command.generation_id])
    assert await world.ask(world.b, command) == Expired(1, False)


async def test_a_delivery_from_the_wrong_pool_is_void(world: World) -> None:
    command = scripted(fallbacks=(Fallback(pool=SPARE, model="scripted"),))
    await world.ask(world.a, command)
    await world.expire(command)
    facts = Facts(envelope(command, TENANT), command, "b", FREE)
    onto = facts.handed_on(1, "worker_lost")
    assert onto is not None
    assert isinstance(onto.data, SubmitPrompt)
    gave = [claims.hand_on(TENANT, command.generation_id, 1, onto, facts.lost(1, 0)) for claims in (world.a, world.b)]
    assert sorted(await asyncio.gather(*gave)) == [False, True]
    assert await world.outbox() == 2, "the loss, and the command"
    assert isinstance(await world.ask(world.a, command), Elsewhere)
    assert isinstance(await world.b.take_over(TENANT, command, 1, facts.lost(1, 0)), Busy), "it is void"
    assert await world.ask(world.b, onto.data) == Expired(1, False, recorded=True)
    assert await world.b.take_over(TENANT, command, 1, None) == Claimed(2)
    assert await world.outbox() == 2, "the loss is recorded once"
    assert isinstance(await world.ask(world.a, command), Elsewhere), "also while it runs"


async def test_only_who_runs_it_hands_it_on(world: World) -> None:
    command = scripted(fallbacks=(Fallback(pool=SPARE, model="scripted"),))
    await world.ask(world.a, command)
    onto = Facts(envelope(command, TENANT), command, "b", FREE).handed_on(1, "no_room")
    assert onto is not None
    assert not await world.b.hand_on(TENANT, command.generation_id, 1, onto, None)
    assert await world.a.hand_on(TENANT, command.generation_id, 1, onto, None)


async def test_what_was_handed_on_can_be_cancelled_at_once(world: World) -> None:
    command = scripted(fallbacks=(Fallback(pool=SPARE, model="scripted"),))
    await world.ask(world.a, command)
    facts = Facts(envelope(command, TENANT), command, "a", FREE)
    onto = facts.handed_on(1, "no_room")
    assert onto is not None
    await world.a.hand_on(TENANT, command.generation_id, 1, onto, facts.lost(1, None))
    answer = await world.b.cancel(TENANT, wish(command), b"")
    assert answer == Expired(1, True, recorded=True)
    assert isinstance(answer, Expired)
    assert answer.command == encode(onto)


async def test_old_claims_are_forgotten_and_running_ones_never(world: World) -> None:
    ended, running = scripted(), scripted()
    for command in (ended, running):
        await world.ask(world.a, command)
    await world.a.end(TENANT, ended.generation_id, 1, answered(ended, "x"))
    await world.owner.execute(
        "UPDATE work.claims SET created_at = now() - interval '3 d', ended_at = ended_at - interval '3 d'"
    )
    assert await world.a.forget_old(keep_hours=24) == 1
    assert isinstance(await world.ask(world.a, running), Mine)


async def stored_keys(world: World, *, own: bool) -> int:
    count: int = await world.owner.fetchval(
        "SELECT count(*) FROM control.data_keys WHERE (generation_id IS NOT NULL) = $1", own
    )
    return count


async def test_the_claim_brings_the_keys(world: World) -> None:
    sealed = SealedPrompts(world.owner.execute)
    kept = await sealed.seal(scripted(), TENANT)
    passing = scripted(conversation=kept.conversation_id).model_copy(update={"keeps_content": False})
    passing = await sealed.seal(passing, TENANT)
    answer = await world.ask(world.a, kept)
    assert isinstance(answer, Claimed)
    assert answer.keys.prompt is not None
    assert answer.keys.prompt == answer.keys.conversation
    await world.expire(kept)
    lost = Facts(envelope(kept, TENANT), kept, "b", FREE).lost(1, 0)
    again = await world.b.take_over(TENANT, kept, 1, lost)
    assert isinstance(again, Claimed)
    assert again.keys == answer.keys
    await world.b.end(TENANT, kept.generation_id, 2, answered(kept, "x", 2))
    own = await world.ask(world.a, passing)
    assert isinstance(own, Claimed)
    assert own.keys.conversation == answer.keys.conversation
    assert own.keys.prompt not in (None, own.keys.conversation)
    erased = await world.ask(world.a, scripted())
    assert isinstance(erased, Claimed)
    assert (erased.keys.prompt, erased.keys.conversation) == (None, None)


@pytest.mark.parametrize("how", ["ends", "is lost", "never begins"])
async def test_the_key_of_a_prompt_that_is_not_kept_dies_with_its_end_and_no_other(world: World, how: str) -> None:
    sealed = SealedPrompts(world.owner.execute)
    conversation = new_id()
    first, second = [
        await sealed.seal(scripted(conversation=conversation).model_copy(update={"keeps_content": False}), TENANT)
        for _ in range(2)
    ]
    await sealed.seal(scripted(conversation=conversation), TENANT)
    facts = Facts(envelope(first, TENANT), first, "a", FREE)
    if how == "never begins":
        await world.a.cancel(TENANT, wish(first), encode(facts.cancelled(0, None)))
    else:
        await world.ask(world.a, first)
        assert await stored_keys(world, own=True) == 2
        if how == "ends":
            assert not await world.b.end(TENANT, first.generation_id, 1, answered(first, "x"))
            assert await stored_keys(world, own=True) == 2, "it has not ended"
            assert await world.a.end(TENANT, first.generation_id, 1, answered(first, "x"))
        else:
            await world.expire(first)
            terminal = encode(facts.cancelled(2, None))
            assert await world.a.end_lost(TENANT, first.generation_id, 1, terminal, facts.lost(1, 0))
    assert await stored_keys(world, own=True) == 1
    assert await stored_keys(world, own=False) == 1
    answer = await world.ask(world.a, second)
    assert isinstance(answer, Claimed)
    assert answer.keys.prompt is not None, "what waits in the same conversation keeps its own"
