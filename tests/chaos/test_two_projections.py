"""Two processes of the projections: one is killed under load, the other goes on, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import start_postgres, start_valkey
from tests.e2e.client import Client, eventually
from tests.e2e.running import Up, free_port, until

pytestmark = pytest.mark.timeout(240)

PROMPTS = 60

BOTH = {"prompt.submit", "generation.completed"}


@pytest.fixture
def up(short_folder: Path) -> Iterator[Up]:
    """On servers that several processes reach, and of its own: the whole record is compared in the end."""
    folder = short_folder / "two"
    with ExitStack() as stack:
        postgres = start_postgres(folder / "servers")
        stack.callback(postgres.server.stop)
        valkey = start_valkey(folder / "servers")
        stack.callback(valkey.server.stop)
        up = Up(folder, PARLEY_POSTGRES__URL=postgres.owner_url(), PARLEY_REDIS__URL=valkey.url)
        stack.enter_context(up.serving())
        yield up


@contextmanager
def another(up: Up) -> Iterator[subprocess.Popen[bytes]]:
    """One more process of the projections, that has joined."""
    port = free_port()
    with (up.folder / "another.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.main", "projections"],
            cwd=up.folder,
            env=up.environment | {"PARLEY_HEALTH_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def joined() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    try:
        until(joined, "another process of the projections did not become ready")
        yield process
    finally:
        process.kill()
        process.wait()


async def load(client: Client) -> list[str]:
    accepted = await asyncio.gather(
        *(client.submit(f"prompt {number}", script={"count": 20, "delay_s": 0.02}) for number in range(PROMPTS))
    )
    return [each["generation_id"] for each in accepted]


async def recorded(client: Client, generations: list[str]) -> None:
    """Each ended, once, in the record and in the read models."""
    for generation_id in generations:
        assert (await client.ended(generation_id))["status"] == "completed"
        # The commands may have been the killed one's to read, and the events the other's: they come in any order.
        await eventually(lambda one=generation_id: types(client, one), BOTH.issubset)  # type: ignore[misc]
    for generation_id in generations:
        told = Counter(await types(client, generation_id))
        assert {name: told[name] for name in BOTH} == dict.fromkeys(BOTH, 1), f"{generation_id}: {told}"


async def types(client: Client, generation_id: str) -> list[str]:
    return [one["type"].partition(".v")[0] for one in await client.events(subject=f"generation:{generation_id}")]


async def test_each_of_two_is_killed_under_load(up: Up) -> None:
    async with Client(up.url, up.admin_key) as client:
        with another(up) as second:
            first = up.child("projections")
            generations = await load(client)
            first.kill()
            await recorded(client, generations)
            # The supervisor has started the first one again by now, or does so; then it is the other's turn.
            await asyncio.to_thread(until, lambda: _runs(up), "the first one did not come back")
            generations = await load(client)
            second.kill()
            await recorded(client, generations)
    said = await asyncio.to_thread(up.parley, "rebuild", "all", "--check")
    assert "DIFFERS" not in said
    assert "event_log: equals" in said


def _runs(up: Up) -> bool:
    try:
        return up.child("projections").status() != psutil.STATUS_ZOMBIE
    except StopIteration:
        return False
