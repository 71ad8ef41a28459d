"""kill -9 in mid-answer, of everything and of each process: the answer is completed, once, and every client gets it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.client import Answer, Client, Json, eventually
from tests.e2e.running import Up, until

pytestmark = pytest.mark.timeout(240)

TOKENS = 60
LEASE_S = "1"


def script(delay_s: float = 0.1) -> list[Json]:
    """The first attempt takes its time, later ones do not; and they differ, so that mixing them shows."""
    return [
        {"tokens": [f"lost{place} " for place in range(TOKENS)], "delay_s": delay_s},
        {"tokens": [f"kept{place} " for place in range(TOKENS)], "delay_s": 0.01},
    ]


def whole(attempt: int) -> str:
    return "".join(script()[min(attempt, 2) - 1]["tokens"])


@pytest.fixture(scope="module")
def up(short_folder: Path) -> Iterator[Up]:
    made = Up(short_folder / "chaos", PARLEY_BUS__LEASE_S=LEASE_S, PARLEY_WORKER__LEASE_S=LEASE_S)
    with made.serving():
        yield made


@pytest.fixture
async def client(up: Up) -> AsyncIterator[Client]:
    async with Client(up.url, up.admin_key) as opened:
        yield opened


async def in_mid_answer(client: Client, answer: Answer) -> None:
    """Some of the answer was told, and much of it was not."""

    async def seq() -> int:
        return answer.seq

    await eventually(seq, lambda seen: seen >= 10)
    assert answer.seq < TOKENS / 2
    assert not answer.ended


async def ended_once(client: Client, accepted: Json) -> Json:
    """The generation, completed; and the record says so exactly once."""
    ended = await client.ended(accepted["generation_id"])
    assert ended["status"] == "completed", ended
    assert ended["content"] == whole(ended["attempt"])
    # A Valkey that came back empty has first to count anew what limits have used.
    await eventually(lambda: client.http.get("/readyz"), lambda answer: answer.status_code == 200)
    await client.ended((await client.submit("Whatever was on its way stands before this."))["generation_id"])
    told = await client.events(subject=f"generation:{accepted['generation_id']}")
    terminal = tuple(f"generation.{how}." for how in ("completed", "failed", "cancelled"))
    endings = [one["data"]["attempt"] for one in told if one["type"].startswith(terminal)]
    assert endings == [ended["attempt"]]
    assert sum(one["type"] == "prompt.submit.v3" for one in told) == 1
    messages = await client.messages(accepted["conversation_id"])
    stored = [message["content"] for message in messages if message["id"] == accepted["message_id"]]
    assert stored == [ended["content"]]
    return ended


async def test_everything(up: Up, client: Client) -> None:
    accepted = await client.submit("talk", script=script())
    follow_up = await client.submit("go on", parent_message_id=accepted["message_id"], idempotency_key="follow-up")
    others = [await client.submit("talk beside", script=script()) for _ in range(3)]
    answer = Answer()
    following = asyncio.create_task(client.follow_through(accepted["generation_id"], answer))
    await in_mid_answer(client, answer)
    up.kill_everything()
    seen, text_before = answer.cursor, answer.text
    assert seen is not None
    assert not following.done()
    up.start()
    await asyncio.to_thread(up.ready)

    ended = await ended_once(client, accepted)
    assert ended["attempt"] == 2
    # Who followed all the time, and who comes back with the cursor that it had.
    assert (await following).text == ended["content"]
    late = Answer(text_before, seen, attempt=1, seq=int(seen.split("-")[1]))
    await client.follow(accepted["generation_id"], late, by_header=False)
    assert late.told[0] == "restarted"
    assert late.told.count("restarted") == 1
    assert late.told[-1] == "completed"
    assert late.text == ended["content"]

    for other in others:
        assert (await ended_once(client, other))["attempt"] == 2
    # What waited for it kept waiting, and goes on from what was kept; asking again makes nothing new.
    again = await client.submit("go on", parent_message_id=accepted["message_id"], idempotency_key="follow-up")
    assert again == follow_up
    answered = await client.ended(follow_up["generation_id"])
    assert (answered["status"], answered["attempt"]) == ("completed", 1)
    assert answered["usage"]["input_tokens"] == 1 + TOKENS + 2

    # The lost attempt is accounted for, as an estimate; the one that counts by what the backend says.
    told = await client.events(subject=f"generation:{accepted['generation_id']}")
    used = [(one["data"]["attempt"], one["data"]["usage"]["source"]) for one in told if "usage" in one["data"]]
    assert sorted(used) == [(1, "estimated"), (2, "provider")]
    last = {name: ended["usage"][name] for name in ("input_tokens", "output_tokens", "source")}
    assert last == {"input_tokens": 1, "output_tokens": TOKENS, "source": "provider"}
    (usage,) = (await client.get("/v1/usage", group_by="model"))["groups"]
    assert usage["estimated_attempts"] == 4
    assert usage["attempts"] == usage["generations"] + 4


VICTIMS = {
    "worker-local": "worker",
    "projections": "projections",
    "gateway": "gateway",
    "valkey": "valkey-server",
    "postgres": "bin/postgres",
}


@pytest.mark.parametrize("victim", VICTIMS)
async def test_one_process(up: Up, client: Client, victim: str) -> None:
    came_back = up.output.count(f"{victim} works again")
    accepted = await client.submit("talk", script=script(delay_s=0.06))
    steady, restless = Answer(), Answer()
    following = asyncio.gather(
        client.follow_through(accepted["generation_id"], steady),
        client.follow_through(accepted["generation_id"], restless, most_events=3),
    )
    await in_mid_answer(client, steady)
    kill(up.child(VICTIMS[victim]))
    await following
    ended = await ended_once(client, accepted)
    for answer in (steady, restless):
        assert answer.text == ended["content"]
        assert answer.told[-1] == "completed"
    if victim == "worker-local":
        assert ended["attempt"] == 2
    elif victim != "postgres":
        # Nobody who only carries or shows the answer costs an attempt.
        assert ended["attempt"] == 1
    await asyncio.to_thread(
        until, lambda: up.output.count(f"{victim} works again") > came_back, f"{victim} did not come back"
    )


@pytest.mark.timeout(480)
async def test_a_batch(up: Up, client: Client) -> None:
    """Each of its lines ends exactly once, although who feeds it and who answers it are killed, and then everything."""
    lines = 200
    talk = {"tokens": ["one ", "two ", "three"], "delay_s": 0.05}
    batch = await client.submit_batch([f"line {number}" for number in range(1, lines + 1)], script=talk)

    async def has_completed(number: int) -> Json:
        def completed(found: Json) -> bool:
            return bool(found) and found["request_counts"]["completed"] >= number

        return await eventually(lambda: patiently(client, f"/v1/batches/{batch['id']}"), completed, within=300)

    await has_completed(20)
    kill(up.child(VICTIMS["gateway"]))
    await has_completed(50)
    kill(up.child(VICTIMS["worker-local"]))
    seen = await has_completed(80)
    assert seen["ended_at"] is None
    up.kill_everything()
    up.start()
    await asyncio.to_thread(up.ready)
    await has_completed(lines)
    ended = await eventually(
        lambda: patiently(client, f"/v1/batches/{batch['id']}"), lambda found: found.get("status") == "completed"
    )
    assert ended["request_counts"] == {"total": lines, "completed": lines, "failed": 0, "running": 0}
    results = [json.loads(line) for line in (await client.http.get(batch["results_url"])).text.splitlines()]
    assert [one["custom_id"] for one in results] == [f"line {number}" for number in range(1, lines + 1)]
    answers = {one["response"]["body"]["choices"][0]["message"]["content"] for one in results}
    assert answers == {"one two three"}
    assert (await client.http.get(batch["errors_url"])).text == ""
    record = await client.events()
    prompts = [one["data"] for one in record if one["data"].get("batch_id") == batch["id"] and "model" in one["data"]]
    assert sorted(one["batch_line"] for one in prompts) == list(range(1, lines + 1))
    ours = {one["generation_id"] for one in prompts}
    endings = [
        one["data"]["generation_id"]
        for one in record
        if one["type"] == "generation.completed.v3" and one["data"]["generation_id"] in ours
    ]
    assert sorted(endings) == sorted(ours)


async def patiently(client: Client, path: str) -> Json:
    """What is there; nothing while the server is not."""
    try:
        response = await client.http.get(path)
    except httpx.TransportError:
        return {}
    found: Json = response.json() if response.is_success else {}
    return found


def kill(process: psutil.Process) -> None:
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
