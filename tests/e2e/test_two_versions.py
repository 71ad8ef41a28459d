"""An upgrade as docs/running/upgrades.md has it: the release before goes on, also beside this one and on its schema."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import pytest

from backplane.adapters.postgres.migrate import newest_revision
from tests.chaos.world import not_ready, works
from tests.conftest import PostgresServer, start_postgres, start_valkey
from tests.e2e.client import Answer, Client, Json, eventually
from tests.e2e.running import Up, free_port, until

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
VERSIONS = "backplane/adapters/postgres/migrations/versions"
SERVICES = (("projections",), ("worker", "--pool", "local"), ("gateway",))


def git(*arguments: str) -> str:
    """What git says; without the history that it takes, the test is left out by name."""
    result = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
    if result.returncode:
        pytest.skip(f"the commit before the newest migration is not in this clone: {result.stderr.strip()[:200]}")
    return result.stdout.strip()


@pytest.fixture(scope="module")
def before(short_folder: Path) -> Iterator[Path]:
    """The code of the commit before the newest migration came."""
    (newest,) = (ROOT / VERSIONS).glob(f"{newest_revision()}_*.py")
    added = git("log", "-1", "--diff-filter=A", "--format=%H", "--", f"{VERSIONS}/{newest.name}")
    if not added:
        pytest.skip(f"{newest.name} is in no commit yet")
    code = short_folder / "before"
    git("worktree", "add", "--detach", str(code), f"{added}^1")
    try:
        assert not (code / VERSIONS / newest.name).exists()
        yield code
    finally:
        git("worktree", "remove", "--force", str(code))


@dataclass(frozen=True)
class Release:
    """Services of one version of the code, on servers that another shares."""

    up: Up
    name: str
    code: Path

    @property
    def environment(self) -> dict[str, str]:
        return self.up.environment | {"PYTHONPATH": str(self.code)}

    def parley(self, *arguments: str) -> str:
        run = subprocess.run(
            [sys.executable, "-P", "-m", "cli.main", *arguments],
            cwd=self.up.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout.strip()

    def start(self, stack: ExitStack) -> None:
        """Return once each of the services is ready; they end with ``stack``."""
        probed = [free_port(), free_port(), self.up.port]
        for service, port in zip(SERVICES, probed, strict=True):
            log = stack.enter_context((self.up.folder / f"{self.name}-{service[0]}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cli.main", *service],
                cwd=self.up.folder,
                env=self.environment | ({} if port == self.up.port else {"PARLEY_HEALTH_PORT": str(port)}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
        try:
            until(lambda: all(_ready(port) for port in probed), f"the services of {self.name} did not become ready")
        except AssertionError as error:
            logs = self.up.folder.glob(f"{self.name}-*.log")
            raise AssertionError("".join(log.read_text()[-1000:] for log in logs)) from error


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def postgres(short_folder: Path) -> Iterator[PostgresServer]:
    running = start_postgres(short_folder / "two-versions-postgres")
    yield running
    running.server.stop()


@pytest.fixture(scope="module")
def releases(before: Path, short_folder: Path, postgres: PostgresServer) -> Iterator[tuple[Release, Release]]:
    """The code before, and today's. Nothing runs yet but the servers."""
    folder = short_folder / "two-versions"
    valkey = start_valkey(short_folder / "two-versions-valkey")
    servers = {"PARLEY_POSTGRES__URL": postgres.owner_url(), "PARLEY_REDIS__URL": valkey.url}
    yield (
        Release(Up(folder, **servers), "before", before),
        Release(Up(folder, **servers), "today", ROOT),
    )
    valkey.server.stop()


async def test_it_is_the_code_before_that_runs(releases: tuple[Release, Release]) -> None:
    for release in releases:
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", "import cli.main; print(cli.main.__file__)"),
            env={"PYTHONPATH": str(release.code)},
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await asked.communicate()
        assert Path(said.decode().strip()) == release.code / "cli/main.py"


async def test_the_release_before_serves_while_this_one_migrates_and_beside_it(
    releases: tuple[Release, Release], postgres: PostgresServer
) -> None:
    earlier, today = releases
    with ExitStack() as stack:
        assert newest_revision() not in await asyncio.to_thread(earlier.parley, "migrate")
        tenant = await asyncio.to_thread(earlier.parley, "tenant", "create", "acme")
        key = await asyncio.to_thread(earlier.parley, "key", "issue", "--tenant", tenant, "--role", "admin")
        await asyncio.to_thread(earlier.start, stack)
        async with Client(earlier.up.url, key) as old, Client(today.up.url, key) as new:
            first = await works(old)
            answered = await _talk_while_it_migrates(old, today)
            assert answered, "nothing was asked while it migrated"
            assert await not_ready(old) == {}
            await asyncio.to_thread(today.start, stack)
            await _both_read(postgres)
            await _goes_on(new, first)
            await _is_picked_up(old, new)
            await _is_picked_up(new, old)
            workers: set[str] = set()
            async with asyncio.timeout(30):
                while len(workers) < 2:
                    workers |= await _asked_at_both(old, new)
            assert await not_ready(old) == await not_ready(new) == {}
    for service, *_ in SERVICES:
        log = (earlier.up.folder / f"before-{service}.log").read_text()
        assert "newer_version" not in log, log


async def _talk_while_it_migrates(client: Client, today: Release) -> list[Json]:
    """What was asked since the migration began, and answered before it had ended."""
    migrating = asyncio.create_task(asyncio.to_thread(today.parley, "migrate"))
    answered = []
    while not migrating.done():
        answered.append(await works(client))
    assert newest_revision() in await migrating
    return answered[:-1]


async def _both_read(postgres: PostgresServer) -> None:
    """The partitions are divided between the projections of both."""
    connection = await asyncpg.connect(postgres.owner_url())

    async def readers() -> int:
        found: int = await connection.fetchval(
            "SELECT count(DISTINCT c.owner_id) FROM bus.cursors c JOIN bus.subscriptions s USING (subscription_id)"
            " WHERE s.name = 'projections'"
        )
        return found

    try:
        await eventually(readers, lambda count: count == 2)
    finally:
        await connection.close()


async def _goes_on(client: Client, first: Json) -> None:
    """A conversation that began on the schema of before."""
    accepted = await client.submit("And now?", conversation_id=first["conversation_id"])
    ended = await client.ended(accepted["generation_id"])
    assert ended["status"] == "completed"
    told = await client.messages(first["conversation_id"])
    assert [one["role"] for one in told] == ["user", "assistant"] * 2
    assert told[-1]["content"] == ended["content"]


async def _is_picked_up(one: Client, other: Client) -> None:
    """A stream that was begun at one gateway and is read on at the other."""
    accepted = await one.submit("Sing.", script={"count": 20, "delay_s": 0.02})
    answer = Answer()
    async for event in one.stream(accepted["generation_id"]):
        answer.take(event)
        if answer.seq >= 5:
            break
    assert not answer.ended
    await other.follow_through(accepted["generation_id"], answer)
    assert (await other.ended(accepted["generation_id"]))["content"] == answer.text


async def _asked_at_both(*clients: Client) -> set[str]:
    """Some prompts at each, answered, and read at each alike: the workers that ran them."""
    asked = await asyncio.gather(*(works(client, f"prompt {place}") for client in clients for place in range(4)))
    workers = set()
    for ended in asked:
        subject = f"generation:{ended['id']}"
        for client in clients:
            assert (await client.generation(ended["id"]))["content"] == ended["content"]
            assert (await client.messages(ended["conversation_id"]))[-1]["content"] == ended["content"]
            # Two projections read the commands and the events, each at its own pace.
            events = await eventually(partial(client.events, subject=subject), _is_whole)
            workers |= {event["data"]["worker"] for event in events if event["type"].startswith("generation.started.")}
    return workers


def _is_whole(events: list[Json]) -> bool:
    types = Counter(event["type"].partition(".v")[0] for event in events)
    return all(types[kind] == 1 for kind in ("prompt.submit", "generation.started", "generation.completed"))
