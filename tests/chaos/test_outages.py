"""Servers that are away, or whose disk is full: clear errors meanwhile, and nothing that was accepted is lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import anthropic
import asyncpg
import openai
import pytest

from tests.chaos.world import World, carried_by_redis, in_mid_answer, not_ready, try_later, works
from tests.e2e.client import Answer, Client, Json, eventually

pytestmark = pytest.mark.timeout(240)

TOKENS = [f"word{place} " for place in range(40)]
SLOW = {"tokens": TOKENS, "delay_s": 0.1}


async def test_without_redis_answers_are_streamed_from_postgres(world: World, client: Client) -> None:
    accepted = await client.submit("talk", script=SLOW)
    answer = Answer()
    following = asyncio.create_task(client.follow_through(accepted["generation_id"], answer))
    await in_mid_answer(answer)
    world.valkey.server.kill()
    try:
        assert set(await not_ready(client)) == {"redis"}
        assert (await following).text == "".join(TOKENS)
        assert "restarted" not in answer.told
        await works(client)
        # While it runs, whoever begins to follow it now gets it as it grows, and it can be cancelled.
        endless = await client.submit("talk", script={"count": 100_000, "delay_s": 0.05})
        late = Answer()
        following = asyncio.create_task(client.follow_through(endless["generation_id"], late))
        await in_mid_answer(late)
        await client.cancel(endless["generation_id"])
        assert (await following).told[-1] == "cancelled"
        assert (await client.ended(endless["generation_id"]))["content"] == late.text
    finally:
        await asyncio.to_thread(world.valkey.server.start)
    await eventually(lambda: not_ready(client), lambda reasons: not reasons)
    await carried_by_redis(world, client)


async def test_without_postgres_prompts_are_refused_for_now_and_what_runs_goes_on(world: World, client: Client) -> None:
    accepted = await client.submit("talk", script=SLOW)
    answer = Answer()
    following = asyncio.create_task(client.follow_through(accepted["generation_id"], answer))
    await in_mid_answer(answer)
    world.postgres.server.kill()
    try:
        for _ in range(3):
            try_later(await client.post_prompt("now?"))
        try_later(await client.post_prompt("once", idempotency_key="through the outage"))
        try_later(await client.http.get("/v1/conversations"))
        try_later(await client.http.get("/v1/events"))
        assert {"postgres", "bus"} <= set(await not_ready(client))
        assert await client.get("/healthz") == {"status": "ok"}
        seen = answer.seq

        async def seq() -> int:
            return answer.seq

        # Tokens keep coming meanwhile: they travel through Redis.
        await eventually(seq, lambda now: now > seen + 3)
    finally:
        await asyncio.to_thread(world.postgres.server.start)
    assert (await following).text == "".join(TOKENS)
    ended = await client.ended(accepted["generation_id"])
    assert (ended["status"], ended["content"]) == ("completed", "".join(TOKENS))
    await eventually(lambda: not_ready(client), lambda reasons: not reasons)
    once = [await client.submit("once", idempotency_key="through the outage") for _ in range(2)]
    assert once[0] == once[1]
    assert (await client.ended(once[0]["generation_id"]))["status"] == "completed"
    await works(client)


async def test_sdks_ask_again_by_themselves_until_postgres_is_back(world: World, client: Client) -> None:
    statuses: dict[str, list[int]] = {"openai": [], "anthropic": []}

    def noting(sdk: str) -> Any:
        async def note(response: Any) -> None:
            statuses[sdk].append(response.status_code)

        return {"response": [note]}

    asked: Any = {"model": "script", "messages": [{"role": "user", "content": "now?"}], "max_tokens": 5}
    async with (
        openai.DefaultAsyncHttpxClient(event_hooks=noting("openai")) as of_openai,
        anthropic.DefaultAsyncHttpxClient(event_hooks=noting("anthropic")) as of_anthropic,
        asyncio.TaskGroup() as tasks,
    ):
        how: Any = {"api_key": client.key, "max_retries": 50}
        one = openai.AsyncOpenAI(base_url=f"{world.up.url}/v1", http_client=of_openai, **how)
        other = anthropic.AsyncAnthropic(base_url=world.up.url, http_client=of_anthropic, **how)
        world.postgres.server.kill()
        try:
            completion = tasks.create_task(one.chat.completions.create(**asked))
            message = tasks.create_task(other.messages.create(**asked))

            async def fewest() -> int:
                return min(map(len, statuses.values()))

            await eventually(fewest, lambda refused: refused >= 2)
        finally:
            await asyncio.to_thread(world.postgres.server.start)
        assert (await completion).choices[0].message.content
        assert (await message).content
    # Anthropic's own word for it is 529.
    for sdk, away in (("openai", 503), ("anthropic", 529)):
        assert statuses[sdk] == [away] * (len(statuses[sdk]) - 1) + [200]
    await eventually(lambda: not_ready(client), lambda reasons: not reasons)


async def test_a_full_disk_under_postgres_refuses_prompts_and_loses_none(world: World, client: Client) -> None:
    if world.disk is None:
        pytest.skip(f"Postgres has no small disk of its own: {world.no_disk or 'mount failed'}")
    connection = await asyncpg.connect(world.postgres.owner_url())
    await connection.execute("CHECKPOINT")
    await connection.close()
    running = await client.submit("talk", script={"tokens": TOKENS, "delay_s": 0.05})
    answer = Answer()
    following = asyncio.create_task(client.follow_through(running["generation_id"], answer))
    await in_mid_answer(answer)
    ballast = world.disk / "ballast"
    accepted: list[Json] = []
    fill(ballast)
    try:
        # Small ones may go where there is still room; large ones find none, and each is told so.
        refused = 0
        async with asyncio.timeout(60):
            for size in itertools.cycle((1, 60_000)):
                response = await client.post_prompt(secrets.token_hex(size), script={"count": 3})
                if response.status_code == 202:
                    accepted.append(response.json())
                else:
                    try_later(response)
                    refused += 1
                if refused == 5:
                    break
        assert "No space left on device" in (world.disk.parent / "postgres.log").read_text()
        assert await client.get("/healthz") == {"status": "ok"}
    finally:
        ballast.unlink()
        if not world.postgres.server.runs:
            await asyncio.to_thread(world.postgres.server.start)
    await works(client)
    assert (await following).text == "".join(TOKENS)
    ended = await client.ended(running["generation_id"])
    assert (ended["status"], ended["content"]) == ("completed", "".join(TOKENS))
    for one in accepted:
        ended = await client.ended(one["generation_id"])
        assert (ended["status"], ended["content"]) == ("completed", "the rain falls")
    assert await eventually(lambda: not_ready(client), lambda reasons: not reasons) == {}


def fill(file: Path) -> None:
    """Leave no room on the file system of ``file``."""
    with file.open("wb", buffering=0) as ballast:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while True:
                    ballast.write(bytes(size))
    assert os.statvfs(file).f_bavail == 0
