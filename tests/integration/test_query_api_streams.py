"""Following generations over Server-Sent Events, from a real server, with real Valkey and Postgres behind it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import redis.asyncio

from backplane.adapters.postgres.migrate import migrate
from backplane.adapters.redis.frames import stream_name
from backplane.ports.identifiers import new_id
from backplane.ports.token_stream import Frame, Kind, StreamUnavailable
from backplane.security.principal import Principal
from event_schemas.chat import AnswerContent, Piece, ToolCall
from event_schemas.control_plane import TitleContent
from event_schemas.generation import TokensContent
from event_schemas.logprobs import TokenLogprob
from event_schemas.topics import EVENTS
from query_api import readers
from tests.conftest import PASSWORD, ROLES, TestDatabase, ValkeyServer, start_postgres, start_valkey
from tests.data_keys import DATA_KEYS
from tests.integration.query_world import Caller, Event, World, batch, events, generation, serving, stream

COMPLETED = {
    "model": "m",
    "usage": {
        "input_tokens": 1,
        "output_tokens": 2,
        "source": "provider",
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "cost_usd": None,
    },
    "served": None,
    "finish_reason": "stop",
}


@pytest.fixture(scope="module")
def own_valkey() -> Iterator[ValkeyServer]:
    with tempfile.TemporaryDirectory(prefix="parley-query-", ignore_cleanup_errors=True) as folder:
        running = start_valkey(Path(folder) / "own")
        yield running
        running.server.stop()


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[World]:
    async with serving(database, valkey_server.url) as made:
        yield made


@pytest.fixture
async def member(world: World) -> Caller:
    return await world.caller(new_id(), "member")


def token(seq: int, *deltas: str, attempt: int = 1) -> Frame:
    return Frame(Kind.TOKEN, attempt, seq, deltas or (f"<{seq}>",))


def text(seen: list[Event]) -> str:
    return "".join(event.data["text"] for event in seen if event.name == "token")


async def finish(world: World, generation_id: UUID, deltas: list[str], *, attempt: int = 1) -> None:
    """What the projections write of a completed generation."""
    await world.owner.execute(
        "UPDATE read_models.generations SET status = 'completed', attempt = $2, finish_reason = 'stop',"
        " input_tokens = 1, output_tokens = 2, cached_input_tokens = 0, reasoning_tokens = 0,"
        " usage_source = 'provider' WHERE id = $1",
        *(generation_id, attempt),
    )
    place = await world.owner.fetchrow(
        "SELECT tenant_id, conversation_id FROM read_models.generations WHERE id = $1", generation_id
    )
    assert place is not None
    await world.owner.execute(
        "UPDATE read_models.messages SET status = 'completed', attempt = $4, answer = $2, deltas = $3 WHERE id = $1",
        *(generation_id, await world.sealed(place[0], place[1], AnswerContent.of(deltas)), len(deltas), attempt),
    )
    await world.owner.execute("DELETE FROM read_models.token_batches WHERE generation_id = $1", generation_id)


class Following:
    """A client that reads a stream while a test goes on."""

    def __init__(self, caller: Caller, generation_id: UUID, **parameters: str) -> None:
        self._caller = caller
        self._path = f"/v1/generations/{generation_id}/stream"
        self._parameters = parameters
        self.seen: list[Event] = []
        self._more = asyncio.Condition()
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with self._caller.http.stream("GET", self._path, params=self._parameters) as response:
            assert response.status_code == 200
            async for event in events(response):
                async with self._more:
                    self.seen.append(event)
                    self._more.notify_all()

    async def until(self, name: str, id: str) -> None:
        async with asyncio.timeout(20), self._more:
            await self._more.wait_for(lambda: any((one.name, one.id) == (name, id) for one in self.seen))

    async def end(self) -> list[Event]:
        async with asyncio.timeout(20):
            await self._task
        return self.seen

    async def leave(self) -> list[Event]:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.seen


async def test_the_whole_life_of_a_generation(world: World, member: Caller) -> None:
    generation_id = await generation(world, member)
    following = Following(member, generation_id)
    await following.until("queued", "0-0")
    for frame in (
        Frame(Kind.STARTED, 1, 0, detail={"model": "m"}),
        token(1, "Grüße\n"),
        token(3, " an", " alle 👋"),
        Frame(Kind.COMPLETED, 1, 3, detail=COMPLETED),
    ):
        world.writer.append(member.tenant_id, generation_id, frame)
        await world.writer.flush()
    seen = await following.end()
    assert [(event.name, event.id) for event in seen if event.name != "token"] == [
        ("queued", "0-0"),
        ("started", "1-0"),
        ("completed", "1-3"),
    ]
    assert seen[1].data == {"attempt": 1, "model": "m"}
    assert text(seen) == "Grüße\n an alle 👋"
    assert [event for event in seen if event.name == "token"][-1].data.keys() == {"text", "seq", "attempt"}
    assert seen[-1].data == COMPLETED


async def test_a_finished_one_can_be_taken_up_after_every_delta(world: World, member: Caller) -> None:
    deltas = ["Grü", "ße", "", " 👋", "\n"] * 60
    generation_id = await generation(world, member, status="running", attempt=1)
    await finish(world, generation_id, deltas, attempt=2)
    whole = await stream(member, generation_id)
    assert [event.name for event in whole] == ["started", "token", "token", "token", "completed"]
    assert whole[-1].data == COMPLETED
    assert text(whole) == "".join(deltas)
    for seq in (0, 1, 127, 128, 299, 300):
        for how in ({"after": f"2-{seq}"}, {"Last-Event-ID": f"2-{seq}", "after": "2-7"}):
            rest = await stream(member, generation_id, **how)
            assert text(rest) == "".join(deltas[seq:])
            assert rest[-1].id == "2-300"
            assert "started" not in [event.name for event in rest]
    restarted = await stream(member, generation_id, after="1-44")
    assert [event.name for event in restarted] == ["restarted", "token", "token", "token", "completed"]
    assert restarted[0].data["attempt"] == 2
    for beyond in ("2-301", f"2-{10**20}", "7-1"):
        assert [event.name for event in await stream(member, generation_id, after=beyond)] == ["completed"]


async def test_failed_and_cancelled_say_why(world: World, member: Caller) -> None:
    failed = await generation(
        world,
        member,
        status="failed",
        attempt=1,
        reason="attempts_exhausted",
        detail="Lost.",
        input_tokens=1,
        output_tokens=0,
        usage_source="estimated",
        deltas=0,
    )
    seen = await stream(member, failed)
    assert [event.name for event in seen] == ["started", "failed"]
    assert (seen[-1].data["reason"], seen[-1].data["detail"]) == ("attempts_exhausted", "Lost.")
    assert [event.name for event in await stream(member, await generation(world, member, status="cancelled"))] == [
        "cancelled"
    ]


async def test_tool_calls_and_reasoning_stream_as_they_were_written(world: World, member: Caller) -> None:
    generation_id = await generation(
        world,
        member,
        status="completed",
        attempt=1,
        finish_reason="tool_calls",
        input_tokens=1,
        output_tokens=5,
        usage_source="provider",
        answer=AnswerContent(
            text="Let me see.",
            reasoning="hm",
            tool_calls=(ToolCall(id="c1", name="look", arguments='{"at":1}'),),
            delta_lengths=((-1, 2), 3, 8, (0, 0), (0, 5), (0, 3)),
        ),
    )
    beginning = {"tool_call": 0, "id": "c1", "name": "look", "arguments": ""}
    pieces = [{"tool_call": 0, "arguments": '{"at"'}, {"tool_call": 0, "arguments": ":1}"}]
    (token,) = [event for event in await stream(member, generation_id) if event.name == "token"]
    assert token.id == "1-6"
    assert token.data == {
        "text": "Let me see.",
        "reasoning": "hm",
        "tool_calls": [beginning, *pieces],
        "seq": 6,
        "attempt": 1,
    }
    (token,) = [event for event in await stream(member, generation_id, after="1-4") if event.name == "token"]
    assert token.data == {"text": "", "tool_calls": pieces, "seq": 6, "attempt": 1}


async def test_logprobs_are_the_same_live_and_from_either_table(world: World, member: Caller) -> None:
    tokens: list[TokenLogprob] = [
        {"token": "Grü", "logprob": -1e-7, "top_logprobs": [{"token": "\ufffd", "logprob": -9999.0, "bytes": [195]}]},
        {"token": "ße", "logprob": -3.4028234663852886e38, "top_logprobs": []},
        {"token": "!", "logprob": 0.0, "top_logprobs": []},
    ]
    pieces: list[Piece] = [
        {"text": "Grüße", "logprobs": tokens[:2]},
        " an",
        {"text": "", "logprobs": tokens[2:]},
    ]
    ending = Frame(Kind.COMPLETED, 1, 3, detail=COMPLETED)
    live = await generation(world, member, status="running", attempt=1)
    following = Following(member, live)
    await following.until("started", "1-0")
    for frame in (Frame(Kind.TOKEN, 1, 3, pieces), ending):
        world.writer.append(member.tenant_id, live, frame)
    batched = await generation(world, member, status="running", attempt=1)
    await batch(world, member, batched, 1, 1, *pieces)
    of_batches = Following(member, batched)
    await of_batches.until("token", "1-3")
    world.writer.append(member.tenant_id, batched, ending)
    finished = await generation(
        world,
        member,
        status="completed",
        attempt=1,
        finish_reason="stop",
        input_tokens=1,
        output_tokens=2,
        usage_source="provider",
        answer=AnswerContent.of(pieces),
    )
    expected = {"text": "Grüße an", "logprobs": tokens, "seq": 3, "attempt": 1}
    for seen in (await following.end(), await of_batches.end(), await stream(member, finished)):
        assert [event.data for event in seen if event.name == "token"] == [expected]
    (token,) = [event for event in await stream(member, finished, after="1-2") if event.name == "token"]
    assert token.data == {"text": "", "logprobs": tokens[2:], "seq": 3, "attempt": 1}


async def forget(world: World, generation_id: UUID) -> None:
    """What the projections write of a message that nobody is to read."""
    await world.owner.execute(
        "UPDATE read_models.messages SET erased = true, prompt = NULL, answer = NULL WHERE id = $1", generation_id
    )


async def conversation_of(world: World, generation_id: UUID) -> UUID:
    found: UUID = await world.owner.fetchval(
        "SELECT conversation_id FROM read_models.generations WHERE id = $1", generation_id
    )
    return found


async def test_an_erased_one_ends_without_tokens_from_any_cursor(world: World, member: Caller) -> None:
    generation_id = await generation(world, member, status="running", attempt=1)
    for seq in (1, 2):
        world.writer.append(member.tenant_id, generation_id, token(seq))
    await world.writer.flush()
    await finish(world, generation_id, ["<1>", "<2>", "<3>"])
    await world.destroy_key(await conversation_of(world, generation_id))
    for after in (None, "0-0", "1-1", "1-3", "1-99", "2-1"):
        seen = await stream(member, generation_id, **({} if after is None else {"after": after}))
        names = [event.name for event in seen]
        assert names == (["started", "completed"] if after in (None, "0-0") else ["completed"])
        assert seen[-1].data == COMPLETED


async def test_one_that_is_not_kept_is_read_by_its_own_key_while_it_runs(world: World, member: Caller) -> None:
    generation_id = await generation(world, member, status="running", attempt=1, erased=True)
    conversation_id = await conversation_of(world, generation_id)
    await world.sealed(member.tenant_id, conversation_id, TitleContent(title="Of another key"))
    key, wrapped = await DATA_KEYS.make(member.tenant_id, conversation_id)
    await world.owner.execute(
        "INSERT INTO control.data_keys (tenant_id, conversation_id, generation_id, wrapped) VALUES ($1, $2, $3, $4)",
        *(member.tenant_id, conversation_id, generation_id, wrapped),
    )
    await world.insert(
        "token_batches",
        generation_id=generation_id,
        attempt=1,
        first_seq=1,
        tenant_id=member.tenant_id,
        count=2,
        content=key.seal(TokensContent.of(["<1>", "<2>"])).model_dump_json(),
    )
    following = Following(member, generation_id)
    await following.until("token", "1-2")
    assert text(await following.leave()) == "<1><2>"


async def test_tokens_of_one_that_is_not_kept_come_from_redis_as_long_as_it_has_them(
    world: World, member: Caller
) -> None:
    generation_id = await generation(world, member, status="running", attempt=1)
    for seq in (1, 2, 3):
        world.writer.append(member.tenant_id, generation_id, token(seq))
    await world.writer.flush()
    await finish(world, generation_id, ["<1>", "<2>", "<3>"])
    await forget(world, generation_id)
    assert text(await stream(member, generation_id)) == "<1><2><3>"
    assert text(await stream(member, generation_id, after="1-2")) == "<3>"
    async with redis.asyncio.Redis.from_url(world.redis_url) as operator:
        await operator.delete(stream_name(member.tenant_id, generation_id))
    seen = await stream(member, generation_id, after="1-2")
    assert [(event.name, event.id) for event in seen] == [("completed", "1-3")]


async def test_a_follower_of_a_conversation_that_is_deleted_sees_the_end(world: World, member: Caller) -> None:
    generation_id = await generation(world, member, status="running", attempt=1)
    following = Following(member, generation_id)
    await following.until("started", "1-0")
    await world.owner.execute(
        "INSERT INTO read_models.conversations (id, tenant_id, renamed, updated_at, deleted)"
        " SELECT conversation_id, tenant_id, false, now(), true FROM read_models.generations WHERE id = $1",
        generation_id,
    )
    await finish(world, generation_id, ["<1>"])
    await forget(world, generation_id)
    assert [event.name for event in await following.end()] == ["started", "completed"]


async def test_batches_whose_key_is_gone_are_left_to_redis(world: World, member: Caller) -> None:
    generation_id = await generation(world, member, status="running", attempt=1)
    await batch(world, member, generation_id, 1, 1, "<1>", "<2>")
    await world.destroy_key(await conversation_of(world, generation_id))
    following = Following(member, generation_id)
    await following.until("started", "1-0")
    world.writer.append(member.tenant_id, generation_id, token(2, "<1>", "<2>"))
    world.writer.append(member.tenant_id, generation_id, Frame(Kind.COMPLETED, 1, 2, detail=COMPLETED))
    assert text(await following.end()) == "<1><2>"


async def test_an_attempt_that_takes_over_is_told(world: World, member: Caller) -> None:
    generation_id = await generation(world, member)
    following = Following(member, generation_id)
    await following.until("queued", "0-0")
    world.writer.append(member.tenant_id, generation_id, token(2, "lost", " words"))
    await following.until("token", "1-2")
    for frame in (
        Frame(Kind.STARTED, 2, 0, detail={"model": "m"}),
        token(3, "still lost"),
        token(1, "kept", attempt=2),
        Frame(Kind.COMPLETED, 2, 1, detail=COMPLETED),
    ):
        world.writer.append(member.tenant_id, generation_id, frame)
    seen = await following.end()
    restart = [event.name for event in seen].index("restarted")
    assert text(seen[:restart]) == "lost words"
    assert text(seen[restart:]) == "kept"
    late = await Following(member, generation_id).end()
    assert (text(late), [event.name for event in late]) == (
        "kept",
        ["queued", "started", "restarted", "token", "completed"],
    )


async def test_one_who_comes_late_gets_all_of_it(world: World, member: Caller) -> None:
    generation_id = await generation(world, member)
    for seq in range(1, 51):
        world.writer.append(member.tenant_id, generation_id, token(seq))
        await world.writer.flush()
    following = Following(member, generation_id)
    await following.until("token", "1-50")
    middle = Following(member, generation_id, after="1-31")
    for seq in range(51, 61):
        world.writer.append(member.tenant_id, generation_id, token(seq))
    world.writer.append(member.tenant_id, generation_id, Frame(Kind.COMPLETED, 1, 60, detail=COMPLETED))
    assert text(await following.end()) == "".join(f"<{seq}>" for seq in range(1, 61))
    assert text(await middle.end()) == "".join(f"<{seq}>" for seq in range(32, 61))


async def test_what_redis_lost_comes_from_postgres(world: World, member: Caller) -> None:
    generation_id = await generation(world, member, status="running", attempt=1)
    following = Following(member, generation_id)
    await following.until("started", "1-0")
    world.writer.append(member.tenant_id, generation_id, token(1))
    await following.until("token", "1-1")
    world.writer.append(member.tenant_id, generation_id, token(5))
    await batch(world, member, generation_id, 1, 1, "<1>", "<2>")
    await batch(world, member, generation_id, 1, 3, "<3>", "<4>")
    await following.until("token", "1-5")
    await finish(world, generation_id, [f"<{seq}>" for seq in range(1, 8)])
    assert text(await following.end()) == "".join(f"<{seq}>" for seq in range(1, 8))


async def test_redis_dies_and_comes_back_in_the_middle(database: TestDatabase, own_valkey: ValkeyServer) -> None:
    async with serving(database, own_valkey.url) as world:
        member = await world.caller(new_id(), "member")
        generation_id = await generation(world, member, status="running", attempt=1)
        followers = [Following(member, generation_id) for _ in range(20)]
        world.writer.append(member.tenant_id, generation_id, token(1))
        for one in followers:
            await one.until("token", "1-1")

        own_valkey.server.kill()
        await batch(world, member, generation_id, 1, 1, "<1>", "<2>", "<3>")
        for one in followers:
            await one.until("token", "1-3")
        late = Following(member, generation_id)
        await late.until("token", "1-3")
        followers.append(late)

        own_valkey.server.start()
        async with asyncio.timeout(20):
            while True:
                world.writer.append(member.tenant_id, generation_id, token(4))
                await world.writer.flush()
                try:
                    if await world.writer.last(member.tenant_id, generation_id) is not None:
                        break
                except StreamUnavailable:
                    continue
        for one in followers:
            await one.until("token", "1-4")
        async with redis.asyncio.Redis.from_url(own_valkey.url) as operator:
            await operator.flushall()
        world.writer.append(member.tenant_id, generation_id, token(5))
        world.writer.append(member.tenant_id, generation_id, Frame(Kind.COMPLETED, 1, 5, detail=COMPLETED))
        for one in followers:
            seen = await one.end()
            assert text(seen) == "<1><2><3><4><5>"
            assert [event.name for event in seen][-1] == "completed"


async def test_a_crowd_of_followers(world: World, member: Caller) -> None:
    generation_id = await generation(world, member)
    limits = httpx.Limits(max_connections=None)
    crowd = Caller(
        member.tenant_id,
        member.user_id,
        member.key_id,
        httpx.AsyncClient(base_url=world.url, headers=member.http.headers, timeout=60, limits=limits, trust_env=False),
    )
    world.clients.append(crowd.http)
    followers = [Following(crowd, generation_id) for _ in range(60)]
    for one in followers:
        await one.until("queued", "0-0")
    for seq in range(1, 41):
        world.writer.append(member.tenant_id, generation_id, token(seq))
        await world.writer.flush()
    world.writer.append(member.tenant_id, generation_id, Frame(Kind.COMPLETED, 1, 40, detail=COMPLETED))
    for one in followers:
        assert text(await one.end()) == "".join(f"<{seq}>" for seq in range(1, 41))


@pytest.fixture
async def own_database(short_folder: Path) -> AsyncIterator[TestDatabase]:
    """A migrated database on a Postgres that the test may kill."""
    server = await asyncio.to_thread(start_postgres, short_folder / "query-killed")
    try:
        await migrate(server.owner_url(), dict.fromkeys(ROLES, PASSWORD))
        yield TestDatabase(server, "postgres")
    finally:
        await asyncio.to_thread(server.server.stop)


async def test_postgres_dies_in_the_middle_and_redis_goes_on(
    own_database: TestDatabase, valkey_server: ValkeyServer
) -> None:
    async with serving(own_database, valkey_server.url) as world:
        member = await world.caller(new_id(), "member")
        generation_id = await generation(world, member)
        following = Following(member, generation_id)
        await following.until("queued", "0-0")
        own_database.server.server.kill()
        for seq in range(1, 4):
            world.writer.append(member.tenant_id, generation_id, token(seq))
            await following.until("token", f"1-{seq}")
        refused = await member.get(f"/v1/generations/{generation_id}")
        assert (refused.status_code, refused.json()["service"]) == (503, "database")
        world.writer.append(member.tenant_id, generation_id, Frame(Kind.COMPLETED, 1, 3, detail=COMPLETED))
        assert text(await following.end()) == "<1><2><3>"
        await asyncio.to_thread(own_database.server.server.start)
        answer = await member.get(f"/v1/generations/{generation_id}")
        assert answer.status_code == 200


async def test_who_leaves_cancels_nothing_and_is_forgotten(world: World, member: Caller) -> None:
    generation_id = await generation(world, member)
    leaving = Following(member, generation_id)
    await leaving.until("queued", "0-0")
    channel = f"tokens:{{{member.tenant_id}:{generation_id}}}"
    async with redis.asyncio.Redis.from_url(world.redis_url) as operator, asyncio.timeout(20):
        while dict(await operator.pubsub_numsub(channel))[channel.encode()] != 1:
            await asyncio.sleep(0.01)
        await leaving.leave()
        while dict(await operator.pubsub_numsub(channel))[channel.encode()] != 0:
            await asyncio.sleep(0.01)
    assert world.bus.topics == {}


async def test_a_silent_stream_is_kept_open_by_comments(database: TestDatabase, valkey_server: ValkeyServer) -> None:
    async with serving(database, valkey_server.url, ping_s=0.05) as world:
        member = await world.caller(new_id(), "member")
        generation_id = await generation(world, member)
        async with (
            asyncio.timeout(20),
            member.http.stream("GET", f"/v1/generations/{generation_id}/stream") as response,
        ):
            comments = 0
            async for line in response.aiter_lines():
                comments += line == ": ping"
                if comments == 3:
                    return
        raise AssertionError("the stream ended")


async def test_tenants_do_not_meet_in_a_stream(world: World, member: Caller) -> None:
    stranger = await world.caller(new_id(), "admin")
    generation_id = await generation(world, member)
    world.writer.append(stranger.tenant_id, generation_id, token(1, "not yours"))
    world.writer.append(stranger.tenant_id, generation_id, Frame(Kind.COMPLETED, 1, 1))
    await world.writer.flush()
    assert (await stranger.get(f"/v1/generations/{generation_id}/stream")).status_code == 404
    following = Following(member, generation_id)
    await following.until("queued", "0-0")
    world.writer.append(stranger.tenant_id, generation_id, token(2, "nor this"))
    world.writer.append(member.tenant_id, generation_id, token(1, "mine"))
    world.writer.append(member.tenant_id, generation_id, Frame(Kind.COMPLETED, 1, 1, detail=COMPLETED))
    assert text(await following.end()) == "mine"


async def test_a_stream_begins_before_the_projections_know_of_it_and_for_its_owner_alone(
    database: TestDatabase, valkey_server: ValkeyServer
) -> None:
    async with serving(database, valkey_server.url, read_your_writes_s=0.5) as world:
        member = await world.caller(new_id(), "member")
        colleague = await world.caller(member.tenant_id, "member")
        stranger = await world.caller(new_id(), "admin")
        generation_id = new_id()
        await world.bus.publish(EVENTS, b"not projected yet")
        owner = {"model": "m", "user_id": str(member.user_id), "key_id": str(member.key_id)}
        world.writer.append(member.tenant_id, generation_id, Frame(Kind.STARTED, 1, 0, detail=owner))
        world.writer.append(member.tenant_id, generation_id, token(1, "early"))
        await world.writer.flush()
        async with member.http.stream("GET", f"/v1/generations/{generation_id}/stream") as response:
            assert response.status_code == 200
            seen: list[Event] = []
            async for event in events(response):
                seen.append(event)
                if event.name == "token":
                    break
        assert [event.name for event in seen] == ["started", "token"]
        assert seen[0].data == {"attempt": 1, "model": "m"}
        for other in (colleague, stranger):
            refused = await other.get(f"/v1/generations/{generation_id}/stream")
            assert refused.status_code == 503, refused.text
            assert "early" not in refused.text


async def test_a_stream_that_nobody_reads_on_is_left(world: World, member: Caller) -> None:
    generation_id = new_id()
    owner = {"model": "m", "user_id": str(member.user_id), "key_id": str(member.key_id)}
    world.writer.append(member.tenant_id, generation_id, Frame(Kind.STARTED, 1, 0, detail=owner))
    await world.writer.flush()
    principal = Principal(member.tenant_id, member.key_id, member.user_id, "member")
    async with redis.asyncio.Redis.from_url(world.redis_url) as operator:

        async def followers() -> int:
            # Whoever comes next tells the server of those who left.
            async with world.ports.streams.follow(member.tenant_id, new_id()):
                ((_, count),) = await operator.pubsub_numsub(stream_name(member.tenant_id, generation_id))
                return int(count)

        steps = await readers.follow(world.ports, principal, generation_id, None)
        assert await followers() == 1
        del steps
        async with asyncio.timeout(10):
            while await followers():
                await asyncio.sleep(0.01)


async def test_what_stands_in_the_stream_does_not_undo_a_deletion(world: World, member: Caller) -> None:
    generation_id = await generation(world, member, status="running", attempt=1)
    owner = {"model": "m", "user_id": str(member.user_id), "key_id": str(member.key_id)}
    world.writer.append(member.tenant_id, generation_id, Frame(Kind.STARTED, 1, 0, detail=owner))
    await world.writer.flush()
    await world.owner.execute(
        "INSERT INTO read_models.conversations (id, tenant_id, user_id, renamed, updated_at, deleted)"
        " SELECT conversation_id, tenant_id, user_id, false, now(), true FROM read_models.generations WHERE id = $1",
        generation_id,
    )
    gone = await member.get(f"/v1/generations/{generation_id}")
    assert gone.status_code == 404, gone.text
    refused = await member.get(f"/v1/generations/{generation_id}/stream")
    assert refused.status_code == 404, refused.text
