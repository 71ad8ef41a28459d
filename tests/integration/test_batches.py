"""Batches from their file to their results: every line ends exactly once, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backplane.ports.bus import Position
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from command_api.batch_file import BatchFile, UnusableFile
from command_api.batches import NotEnded
from command_api.content_policy import set_content_policy
from command_api.conversations import ContentNotKept, NoSuch
from command_api.erasure import erase_due, erase_user
from command_api.prompt import PromptBody
from event_schemas.erasure import ContentPolicy
from query_api.freshness import NoSuch as NotThere
from tests.conftest import TestDatabase, ValkeyServer
from tests.integration.batch_world import SLOTS, World, codes, line

ASK = [line(f"question {number}") for number in range(1, 11)]


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[World]:
    async with AsyncExitStack() as open_:
        made = World(database, valkey_server.url, open_)
        await made.start()
        yield made


async def test_each_line_is_answered_once_and_the_results_are_as_openais(world: World) -> None:
    batch = await world.upload(*ASK)
    before = await world.shown(batch.id)
    assert (before["total"], before["begun"], before["completed"], before["failed"]) == (10, 0, 0, 0)
    assert before["metadata"] == {"run": "nightly"}
    async with world.pumping():
        await world.answer_all()
    after = await world.shown(batch.id)
    assert (after["begun"], after["completed"], after["failed"]) == (10, 10, 0)
    assert after["ended_at"] is not None
    results = await world.results(batch.id)
    assert [one["custom_id"] for one in results] == [f"question {number}" for number in range(1, 11)]
    for one in results:
        assert one["error"] is None
        assert one["response"]["status_code"] == 200
        assert one["response"]["body"]["choices"][0]["message"]["content"] == "Blue."
    assert await world.errors(batch.id) == []
    # Nothing of the file is left, and every prompt said what its line said.
    assert await world.owner.fetchval("SELECT count(*) FROM control.batch_lines") == 0
    for prompt in world.prompts():
        content = await world.content_of(prompt)
        assert content.messages[0].text == content.custom_id
        assert (prompt.batch_id, prompt.batch_line) == (batch.id, int((content.custom_id or "").split()[1]))


async def test_few_lines_are_open_at_a_time_also_of_several_batches(world: World) -> None:
    await world.upload(*ASK)
    await world.upload(*ASK)
    async with world.pumping():
        await world.until(lambda: len(world.prompts()) == 2 * SLOTS)
        await world.project()
        # Others come only as some end.
        await world.end(world.prompts()[0])
        await world.until(lambda: len(world.prompts()) == 2 * SLOTS + 1)
        await world.project()
    assert len(world.prompts()) == 2 * SLOTS + 1


async def test_no_line_is_begun_while_another_prompt_waits_in_the_pool(world: World) -> None:
    other = Principal(world.tenant_id, new_id(), None, "member")
    await world.submission().submit(other, PromptBody.model_validate({"input": "now"}), None, None)
    await world.project()
    (waiting,) = world.prompts()
    batch = await world.upload(*ASK[:1])
    async with world.pumping():
        asked = "SELECT next_try_at > created_at FROM control.batches WHERE batch_id = $1"
        async with asyncio.timeout(20):
            while not await world.owner.fetchval(asked, batch.id):
                await asyncio.sleep(0.01)
        assert world.prompts() == [waiting]
        await world.end(waiting)
        await world.soon()
        await world.until(lambda: len(world.prompts()) == 2)


async def test_lines_that_are_no_prompts_fail_with_their_reason_and_the_others_go_on(world: World) -> None:
    batch = await world.upload(
        line("good"),
        line("unknown", model="no-such-model"),
        line("twice", n=2),
        line("audio", modalities=["audio"]),
        line("image", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        line("last"),
    )
    async with world.pumping():
        await world.answer_all()
    assert [one["custom_id"] for one in await world.results(batch.id)] == ["good", "last"]
    errors = await world.errors(batch.id)
    assert codes(errors) == {
        "unknown": "unknown_model",
        "twice": "invalid_request",
        "audio": "invalid_request",
        "image": "invalid_request",
    }
    assert "There are: m." in errors[0]["error"]["message"]
    shown = await world.shown(batch.id)
    assert (shown["completed"], shown["failed"], shown["never_begun"]) == (2, 4, 4)


async def dying(world: World, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Run a pump that dies when ``after`` prompts were published, before it notes the last one."""
    published = asyncio.Event()
    publish = world.bus.publish

    async def counted(topic: str, payload: bytes, **more: Any) -> Position:
        position = await publish(topic, payload, **more)
        if len(world.prompts()) == after:
            published.set()
            await asyncio.Event().wait()
        return position

    with monkeypatch.context() as patched:
        patched.setattr(world.bus, "publish", counted)
        running = asyncio.create_task(world.pump().run(asyncio.Event()))
        await asyncio.wait_for(published.wait(), 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await world.owner.execute("UPDATE control.batches SET lease_until = now()")


async def test_a_line_that_was_published_before_a_crash_is_that_same_prompt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await world.upload(*ASK)
    await dying(world, monkeypatch, after=1)
    await dying(world, monkeypatch, after=3)
    begun = "SELECT count(*) FROM control.batch_lines WHERE generation_id IS NOT NULL"
    assert await world.owner.fetchval(begun) < len(world.prompts())
    async with world.pumping():
        await world.answer_all()
    assert len(world.prompts()) == 10
    assert [one["custom_id"] for one in await world.results(batch.id)] == [f"question {n}" for n in range(1, 11)]


@pytest.mark.parametrize("how", ["expired", "cancelled"])
async def test_what_was_published_before_a_crash_ends_as_itself_also_where_no_line_is_begun_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    batch = await world.upload(*ASK)
    await dying(world, monkeypatch, after=1)
    if how == "cancelled":
        await world.batches.cancel(world.principal, batch.id)
    else:
        await world.owner.execute("UPDATE control.batches SET expires_at = now()")
    async with world.pumping():
        await world.answer_all()
    assert [one["custom_id"] for one in await world.results(batch.id)] == ["question 1"]
    errors = await world.errors(batch.id)
    assert codes(errors) == {f"question {number}": f"batch_{how}" for number in range(2, 11)}
    shown = await world.shown(batch.id)
    assert (shown["completed"], shown["failed"]) == (1, 9)
    assert shown[f"{how}_at"] is not None


async def test_two_pumps_at_once_make_each_line_one_prompt(world: World) -> None:
    batch = await world.upload(*ASK)
    async with world.pumping(), world.pumping():
        await world.answer_all()
    assert len(world.prompts()) == 10
    assert len(await world.results(batch.id)) == 10


async def test_cancelling_stops_what_runs_and_keeps_what_was_answered(world: World) -> None:
    batch = await world.upload(*ASK)
    async with world.pumping():
        await world.until(lambda: len(world.prompts()) == 2 * SLOTS)
        first, *others = world.prompts()
        await world.end(first)
        await world.until(lambda: len(world.prompts()) == 2 * SLOTS + 1)
        others = world.prompts()[1:]
        await world.project()
        assert await world.batches.cancel(world.principal, batch.id) is not None
        assert await world.batches.cancel(world.principal, batch.id) is None
        await world.until(lambda: world.cancels() == {one.generation_id for one in others})
        with pytest.raises(NotEnded):
            await world.batches.delete(world.principal, batch.id)
        for one in others:
            await world.end(one, cancelled=True)
        await world.until_ended(batch.id)
    assert [one["custom_id"] for one in await world.results(batch.id)] == ["question 1"]
    found = codes(await world.errors(batch.id))
    assert [found[f"question {number}"] for number in range(2, 11)] == ["cancelled"] * 4 + ["batch_cancelled"] * 5


async def test_a_limit_makes_lines_wait_and_one_larger_than_it_fail(world: World) -> None:
    await world.limit(concurrent=1, tokens_per_minute=1000)
    batch = await world.upload(line("huge", max_tokens=5000), *(line(f"{n}", max_tokens=10) for n in range(3)))
    async with world.pumping():
        await world.until(lambda: len(world.prompts()) == 1)
        await world.project()
        for number in range(3):
            async with asyncio.timeout(20):
                while len(world.prompts()) <= number:
                    await world.soon()
                    await asyncio.sleep(0.01)
            assert len(world.prompts()) == number + 1
            await world.end(world.prompts()[-1])
        await world.until_ended(batch.id)
    assert len(await world.results(batch.id)) == 3
    assert codes(await world.errors(batch.id)) == {"huge": "larger_than_limit"}


async def test_lines_wait_while_who_submitted_them_may_not_ask(world: World) -> None:
    user_id = new_id()
    await world.owner.execute(
        "INSERT INTO control.users (user_id, tenant_id, name, role, suspended_at)"
        " VALUES ($1, $2, 'Ada', 'member', now())",
        *(user_id, world.tenant_id),
    )
    ada = Principal(world.tenant_id, new_id(), user_id, "member")
    batch = await world.upload(*ASK[:1], principal=ada)
    async with world.pumping():
        tried = "SELECT next_try_at > now() FROM control.batches WHERE batch_id = $1"
        async with asyncio.timeout(20):
            while not await world.owner.fetchval(tried, batch.id):
                await asyncio.sleep(0.01)
        assert world.prompts() == []
        await world.owner.execute("UPDATE control.users SET suspended_at = NULL")
        await world.soon()
        await world.until(lambda: len(world.prompts()) == 1)
    (prompt,) = world.prompts()
    assert prompt.user_id == user_id


async def test_deleting_takes_what_was_written_with_it(world: World) -> None:
    batch = await world.upload(line("bad", n=2), *ASK[:3])
    async with world.pumping():
        await world.answer_all()
    assert await world.owner.fetchval("SELECT count(*) FROM control.data_keys") == 4
    _, conversations = await world.batches.delete(world.principal, batch.id)
    assert set(conversations) == {prompt.conversation_id for prompt in world.prompts()}
    assert await world.owner.fetchval("SELECT count(*) FROM control.data_keys") == 0
    with pytest.raises(NotThere):
        await world.shown(batch.id)
    with pytest.raises(NoSuch):
        await world.batches.delete(world.principal, batch.id)


async def test_what_a_user_wrote_is_erased_with_the_lines_that_wait(world: World) -> None:
    user_id = new_id()
    await world.owner.execute(
        "INSERT INTO control.users (user_id, tenant_id, name, role) VALUES ($1, $2, 'Ada', 'member')",
        *(user_id, world.tenant_id),
    )
    batch = await world.upload(*ASK, principal=Principal(world.tenant_id, new_id(), user_id, "member"))
    await erase_user(world.commands, world.principal, user_id)
    async with world.pumping():
        await world.until_ended(batch.id)
    assert world.prompts() == []
    shown = await world.shown(batch.id)
    assert (shown["failed"], shown["metadata"]) == (10, None)
    assert [one["error"]["code"] for one in await world.errors(batch.id)] == ["content_erased"] * 10


async def test_what_is_kept_for_so_many_days_only_is_erased_of_batches_too(world: World) -> None:
    batch = await world.upload(line("bad", n=2), line("good"))
    waiting = await world.upload(line("waits"))
    async with world.pumping():
        await world.until(lambda: len(world.prompts()) == 2)
        for prompt in world.prompts():
            if prompt.batch_id == batch.id:
                await world.end(prompt)
        await world.until_ended(batch.id)
    await set_content_policy(world.commands, world.tenant_id, ContentPolicy(content_days=1))
    await world.owner.execute("UPDATE control.data_keys SET created_at = now() - interval '2 days'")
    assert await erase_due(world.commands, datetime.now(UTC)) == 0
    assert await erase_due(world.commands, datetime.now(UTC) + timedelta(days=1, seconds=1)) == 3
    shown = await world.shown(batch.id)
    assert (shown["metadata"], shown["completed"], shown["failed"]) == (None, 1, 1)
    assert codes(await world.results(batch.id)) == {None: "content_erased"}
    assert codes(await world.errors(batch.id)) == {None: "invalid_request"}
    # One that has not ended is kept.
    assert (await world.shown(waiting.id))["metadata"] == {"run": "nightly"}


async def test_a_file_that_breaks_off_or_is_wrong_leaves_nothing(world: World) -> None:
    await world.project()
    with pytest.raises(UnusableFile):
        await world.upload(*ASK, b"{\n")

    async def breaks_off() -> AsyncIterator[bytes]:
        for number in range(600):
            yield line(f"{number}")
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await world.batches.submit(world.principal, BatchFile(1000, 10_000), breaks_off(), {})
    for table in ("batches", "batch_lines", "data_keys", "outbox"):
        assert await world.owner.fetchval(f"SELECT count(*) FROM control.{table}") == 0


async def test_what_is_left_of_an_upload_is_forgotten_a_day_later(world: World) -> None:
    await world.upload(*ASK)
    await world.owner.execute("UPDATE control.batches SET submitted_at = NULL")
    await world.owner.execute("SELECT control.forget_uploads()")
    assert await world.owner.fetchval("SELECT count(*) FROM control.batches") == 1
    await world.owner.execute("UPDATE control.batches SET created_at = now() - $1::interval", timedelta(hours=25))
    await world.owner.execute("SELECT control.forget_uploads()")
    for table in ("batches", "batch_lines", "data_keys"):
        assert await world.owner.fetchval(f"SELECT count(*) FROM control.{table}") == 0


async def test_who_keeps_no_content_has_no_batches(world: World) -> None:
    await set_content_policy(world.commands, world.tenant_id, ContentPolicy(keeps_content=False))
    with pytest.raises(ContentNotKept):
        await world.upload(*ASK)
    assert await world.owner.fetchval("SELECT count(*) FROM control.data_keys") == 0


async def test_a_batch_is_its_submitters_and_the_admins(world: World) -> None:
    ada, bob = (Principal(world.tenant_id, new_id(), new_id(), "member") for _ in range(2))
    batch = await world.upload(*ASK, principal=ada)
    for change in (world.batches.cancel, world.batches.delete):
        with pytest.raises(NoSuch):
            await change(bob, batch.id)
    assert await world.batches.cancel(ada, batch.id) is not None
    assert (await world.shown(batch.id))["cancelled_at"] is not None
