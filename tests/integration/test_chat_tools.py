"""Chat tools and their questions: sealed, asked once, in order, and somebody's until they are answered."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest

import command_api.chat_replies
from backplane.adapters.postgres.database import PostgresDatabase
from backplane.ports.bus import BusUnavailable
from backplane.ports.identifiers import new_id
from backplane.security.sealing import CannotOpen, MasterKey
from command_api.admission import Refused
from command_api.chat_replies import ChatReplies, NotOurs, Question, Taken
from command_api.chat_tools import MOST_CHAT_TOOLS, ChatTools, Known, NoSuchChatTool
from command_api.ports import CommandPorts
from event_schemas.chat_tools import ChatToolAdded, ChatToolRemoved, ChatToolSecretsSet
from event_schemas.codec import decode
from gateway.chat_tools.asking import MAY_NOT_ASK, Asking, NotAsked
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration import batch_world

SECRETS = {"signing_secret": "canary-of-slack", "bot_token": "xoxb-canary"}
LEASE_S = 30.0


@dataclass
class World:
    batch: batch_world.World
    database: TestDatabase
    tools: ChatTools
    replies: ChatReplies

    @property
    def owner(self) -> asyncpg.Connection[Any]:
        return self.batch.owner

    async def add(self) -> Known:
        added = await self.tools.add(self.batch.principal, "slack", "desk", None, None, SECRETS)
        return await self.tools.named(added.id, added.kind)

    async def ask(self, tool: Known, text: str, *, event: str | None = None, thread: str = "C1/1") -> None:
        await self.replies.ask(tool, event or str(new_id()), thread, Question(text, {"channel": "C1", "thread": "1"}))

    async def one(self) -> Taken:
        (taken,) = await self.replies.take(10)
        return taken

    async def lose(self) -> None:
        """Whoever holds leases is dead, and time has passed."""
        await self.owner.execute("UPDATE control.chat_replies SET lease_until = now() - interval '1 s'")

    def asking(self) -> Asking:
        ports = SimpleNamespace(
            submission=self.batch.submission(),
            chat_replies=self.replies,
            limit_warnings=SimpleNamespace(notice=lambda _: None),
        )
        return Asking(cast(CommandPorts, ports))

    async def submit(self, taken: Taken) -> UUID:
        """As who brings the answer does; but for saying that it was done."""
        asker = await self.replies.asker(taken.tenant_id, taken.key_id, taken.user_id)
        return (await self.asking().ask(taken, self.replies.question(taken), asker)).generation_id

    async def became(self, taken: Taken) -> UUID:
        asker = await self.replies.asker(taken.tenant_id, taken.key_id, taken.user_id)
        question = self.replies.question(taken)
        found = await self.asking().ask(taken, question, asker)
        await self.replies.became(taken, question.place, found.generation_id, found.conversation_id)
        return found.conversation_id

    async def told(self) -> list[object]:
        rows = await self.owner.fetch("SELECT envelope FROM control.outbox ORDER BY id")
        return [decode(row["envelope"]).data for row in rows]


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[World]:
    async with AsyncExitStack() as open_:
        batch = batch_world.World(database, valkey_server.url, open_)
        await batch.start()
        key = MasterKey(secrets.token_hex(32))
        relay = PostgresDatabase(database.role_url("relay"), pool_size=4)
        open_.push_async_callback(relay.close)
        tools = ChatTools(batch.commands, relay, key, batch.settings)
        yield World(batch, database, tools, ChatReplies(batch.commands, relay, key, lease_s=LEASE_S))


async def test_a_tool_is_sealed_and_told_in_one_step(world: World) -> None:
    tool = await world.add()
    assert tool.secrets == SECRETS
    (row,) = await world.owner.fetch("SELECT * FROM control.chat_tools")
    (*_, event) = await world.told()
    assert isinstance(event, ChatToolAdded)
    assert (event.chat_tool_id, event.key_id, event.kind) == (tool.id, world.batch.principal.key_id, "slack")
    envelopes = [row["envelope"].decode() for row in await world.owner.fetch("SELECT envelope FROM control.outbox")]
    for shown in (str(dict(row)), repr(tool), *envelopes):
        assert "canary" not in shown
    await world.owner.execute("UPDATE control.chat_tools SET chat_tool_id = $1", moved := new_id())
    with pytest.raises(CannotOpen):
        await world.tools.named(moved, "slack")


async def test_new_secrets_take_the_place_of_the_former(world: World) -> None:
    added = await world.tools.add(world.batch.principal, "teams", "desk", None, None, {})
    with pytest.raises(NoSuchChatTool):
        await world.tools.named(added.id, "teams")
    for token in ("b25l", "dHdv"):
        await world.tools.set_secrets(world.batch.principal, added.id, "teams", {"security_token": token})
        assert (await world.tools.named(added.id, "teams")).secrets == {"security_token": token}
    assert (await world.told())[-1] == ChatToolSecretsSet(chat_tool_id=added.id)
    with pytest.raises(Refused):
        await world.tools.set_secrets(world.batch.principal, added.id, "slack", SECRETS)


async def test_a_removed_one_leaves_nothing(world: World) -> None:
    tool = await world.add()
    await world.ask(tool, "Why?")
    taken = await world.one()
    await world.became(taken)
    await world.tools.remove(world.batch.principal, tool.id)
    assert (await world.told())[-1] == ChatToolRemoved(chat_tool_id=tool.id)
    for table in ("chat_tools", "chat_threads", "chat_replies"):
        assert await world.owner.fetchval(f"SELECT count(*) FROM control.{table}") == 0
    with pytest.raises(NoSuchChatTool):
        await world.tools.remove(world.batch.principal, tool.id)
    with pytest.raises(NotOurs):
        await world.replies.renew(taken)
    await world.ask(tool, "And?")
    assert await world.replies.take(10) == []


async def test_who_removes_one_and_who_asks_for_it_do_not_lock_each_other_out(world: World) -> None:
    tool = await world.add()
    await world.ask(tool, "Why?")
    taken = await world.one()
    async with world.owner.transaction():
        # As a removal begins, before it comes to what is the tool's.
        await world.owner.execute("SELECT 1 FROM control.chat_tools WHERE chat_tool_id = $1 FOR UPDATE", tool.id)
        asking = asyncio.create_task(world.became(taken))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%chat_t%'"
        async with asyncio.timeout(30):
            while not await world.owner.fetchval(waiting):
                await world.owner.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees the same again
                await asyncio.sleep(0.02)
        await world.owner.execute("DELETE FROM control.chat_tools WHERE chat_tool_id = $1", tool.id)
    with pytest.raises(NotOurs):
        await asking


async def test_a_tenant_has_so_many_and_no_more(world: World) -> None:
    answers = await asyncio.gather(*(world.add() for _ in range(MOST_CHAT_TOOLS + 2)), return_exceptions=True)
    assert [one.type for one in answers if isinstance(one, Refused)] == ["too-many-chat-tools"] * 2


async def test_a_question_is_sealed_until_it_is_a_prompt_and_then_gone(world: World) -> None:
    tool = await world.add()
    await world.ask(tool, "What does the canary say?")
    taken = await world.one()
    question = world.replies.question(taken)
    assert question.text == "What does the canary say?"
    assert "canary" not in repr(question) + repr(taken)
    await world.became(taken)
    await world.lose()
    taken = await world.one()
    assert world.replies.question(taken) == Question(None, {"channel": "C1", "thread": "1"})
    await world.replies.end(taken)
    assert await world.owner.fetchval("SELECT sealed FROM control.chat_replies") is None


async def test_what_comes_again_is_kept_once(world: World) -> None:
    tool, other = await world.add(), await world.add()
    await asyncio.gather(*(world.ask(tool, "Why?", event="Ev1") for _ in range(5)))
    await world.ask(other, "Why?", event="Ev1")
    assert len(await world.replies.take(10)) == 2


async def test_a_lease_is_one_holders_until_it_ends(world: World) -> None:
    await world.ask(await world.add(), "Why?")
    taken = await world.one()
    assert await world.replies.take(10) == []
    await world.lose()
    other = await world.one()
    assert other.chat_reply_id == taken.chat_reply_id
    for late in (
        world.replies.renew(taken),
        world.replies.failed(taken),
        world.replies.stands_in(taken, ["1"]),
        world.replies.refused(taken, {}, "no"),
        world.replies.became(taken, {}, new_id(), new_id()),
        world.replies.end(taken),
    ):
        with pytest.raises(NotOurs):
            await late
    assert await world.owner.fetchval("SELECT count(*) FROM control.chat_threads") == 0
    await world.replies.stands_in(other, ["first", "second"])
    assert [await world.replies.failed(other) for _ in range(2)] == [1, 2]
    await world.replies.later(other, 0.0)
    again = await world.one()
    assert (again.messages, again.failures) == (["first", "second"], 2)
    await world.replies.stands_in(again, ["first"])
    assert await world.replies.failed(again) == 1
    await world.replies.later(again, 60.0)
    assert await world.replies.take(10) == []


async def test_who_was_killed_after_it_was_asked_asks_nothing_twice(world: World) -> None:
    tool = await world.add()
    await world.ask(tool, "Why?")
    first = await world.submit(await world.one())
    await world.lose()
    await world.ask(tool, "Another one, in the same thread.")
    taken = await world.one()  # the other one waits for it
    assert await world.submit(taken) == first
    await world.became(taken)
    await world.batch.project()
    assert [(await world.batch.content_of(one)).messages[0].text for one in world.batch.prompts()] == ["Why?"]
    standing = await world.replies.newest(tool, "C1/1")
    assert standing is not None
    assert standing.generation_id is None  # of the other one


async def test_questions_of_a_thread_are_asked_in_order_and_are_one_conversation(world: World) -> None:
    tool = await world.add()
    for text in ("one", "two"):
        await world.ask(tool, text)
    await world.ask(tool, "elsewhere", thread="C1/2")
    first, elsewhere = sorted(await world.replies.take(10), key=lambda taken: taken.thread)
    assert await world.replies.take(10) == []
    conversation = await world.became(first)
    assert await world.became(elsewhere) != conversation
    await world.batch.project()
    second = await world.one()
    assert world.replies.question(second).text == "two"
    assert await world.replies.conversation(second) == conversation


async def test_one_that_was_asked_earlier_and_came_later_waits_for_who_is_being_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = await world.add()
    earlier = new_id()
    await world.ask(tool, "two")
    second = await world.one()
    monkeypatch.setattr(command_api.chat_replies, "new_id", lambda: earlier)
    await world.ask(tool, "one")
    assert await world.replies.take(10) == []
    conversation = await world.became(second)
    await world.batch.project()
    first = await world.one()
    assert world.replies.question(first).text == "one"
    assert await world.replies.conversation(first) == conversation


async def test_a_refused_question_lets_the_next_one_be_asked(world: World) -> None:
    tool = await world.add()
    for text in ("one", "two"):
        await world.ask(tool, text)
    await world.replies.refused(await world.one(), {"channel": "C1"}, "A limit is reached.")
    second = await world.one()
    assert world.replies.question(second).text == "two"
    await world.lose()
    refused, _ = sorted(await world.replies.take(10), key=lambda taken: taken.chat_reply_id)
    assert (refused.refusal, world.replies.question(refused).text) == ("A limit is reached.", None)


async def test_it_is_asked_as_who_added_the_tool_while_they_may(world: World) -> None:
    await world.ask(await world.add(), "Why?")
    taken = await world.one()
    await world.owner.execute("UPDATE control.api_keys SET revoked_at = now()")
    assert await world.replies.asker(taken.tenant_id, taken.key_id, taken.user_id) is None
    with pytest.raises(NotAsked, match=MAY_NOT_ASK[:20]):
        await world.submit(taken)
    assert world.batch.prompts() == []


async def test_while_the_bus_is_away_it_waits(world: World) -> None:
    await world.ask(await world.add(), "Why?")
    taken = await world.one()
    world.batch.bus.away = True
    with pytest.raises(BusUnavailable):
        await world.submit(taken)
    world.batch.bus.away = False
    assert await world.submit(taken) == await world.submit(taken)


async def test_what_was_answered_is_forgotten_days_later(world: World) -> None:
    tool = await world.add()
    await world.ask(tool, "Why?", event="Ev1")
    await world.replies.end(await world.one(), "Slack says: no")
    (shown,) = await world.tools.all(world.batch.tenant_id)
    assert shown["last_failure"] == "Slack says: no"
    await world.owner.execute("SELECT control.forget_chat_replies()")
    assert await world.replies.standing(tool, "Ev1") is not None
    await world.owner.execute("UPDATE control.chat_replies SET ended_at = now() - interval '49 hours'")
    await world.owner.execute("SELECT control.forget_chat_replies()")
    assert await world.replies.standing(tool, "Ev1") is None


STATEMENTS = {
    "list": "SELECT chat_tool_id, kind FROM control.chat_tools",
    "read secrets": "SELECT sealed FROM control.chat_tools",
    "read questions": "SELECT sealed FROM control.chat_replies",
    "see how far": "SELECT event, generation_id, messages FROM control.chat_replies",
    "change the asker": "UPDATE control.chat_tools SET key_id = gen_random_uuid()",
    "forget": "DELETE FROM control.chat_replies",
    "find": "SELECT control.chat_tool(gen_random_uuid())",
    "take": "SELECT control.take_chat_replies(gen_random_uuid(), 1, 1)",
    "forget old": "SELECT control.forget_chat_replies()",
}


async def test_what_each_role_may_do_is_no_more_than_it_needs(world: World) -> None:
    await world.ask(await world.add(), "Why?")
    done = set()
    for role in ("command_api", "query_api", "worker", "projections", "relay"):
        connection = await asyncpg.connect(world.database.role_url(role))
        await connection.execute("SELECT set_config('parley.tenant', $1, false)", str(world.batch.tenant_id))
        for name, statement in STATEMENTS.items():
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute(statement)
                done.add((role, name))
            except asyncpg.InsufficientPrivilegeError:
                continue
            finally:
                await transaction.rollback()
        await connection.close()
    assert done == {
        ("command_api", "list"),
        ("command_api", "see how far"),
        ("relay", "find"),
        ("relay", "take"),
        ("relay", "forget old"),
    }


async def test_another_tenants_is_not_there(world: World) -> None:
    tool = await world.add()
    await world.ask(tool, "Why?", event="Ev1")
    stranger = Known(tool.id, new_id(), {})
    assert await world.tools.all(stranger.tenant_id) == []
    assert await world.replies.standing(stranger, "Ev1") is None
    await world.ask(stranger, "Why?", event="Ev2")
    assert len(await world.replies.take(10)) == 1
