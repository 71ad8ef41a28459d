"""Migrations are forward and online: the release before runs on the schema that this one has made."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from backplane.adapters.postgres.migrate import newest_revision
from tests.chaos.world import not_ready, works
from tests.conftest import start_postgres, start_valkey
from tests.e2e.client import Client
from tests.e2e.running import Up, until

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
VERSIONS = "backplane/adapters/postgres/migrations/versions"


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


@pytest.fixture(scope="module")
def earlier(before: Path, short_folder: Path) -> Iterator[tuple[str, str]]:
    """Services of the code before, on a database that today's code has migrated: their URL, and a key."""
    folder = short_folder / "two-versions"
    with ExitStack() as stack:
        postgres, valkey = start_postgres(folder / "servers"), start_valkey(folder / "servers")
        stack.callback(postgres.server.stop)
        stack.callback(valkey.server.stop)
        today = Up(folder, PARLEY_POSTGRES__URL=postgres.owner_url(), PARLEY_REDIS__URL=valkey.url)
        assert newest_revision() in today.parley("migrate")
        tenant = today.parley("tenant", "create", "acme").strip()
        key = today.parley("key", "issue", "--tenant", tenant, "--role", "admin").strip()
        for service in (("projections",), ("worker", "--pool", "local"), ("gateway",)):
            log = stack.enter_context((folder / f"{service[0]}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cli.main", *service],
                cwd=folder,
                env=today.environment | {"PYTHONPATH": str(before)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
        try:
            until(lambda: _ready(today.url), "the services of the code before did not become ready")
        except AssertionError as error:
            raise AssertionError("".join(log.read_text()[-1000:] for log in folder.glob("*.log"))) from error
        yield today.url, key


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
async def client(earlier: tuple[str, str]) -> AsyncIterator[Client]:
    async with Client(*earlier) as opened:
        yield opened


async def test_it_is_the_code_before_that_runs(before: Path) -> None:
    asked = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", "import cli.main; print(cli.main.__file__)"),
        env={"PYTHONPATH": str(before)},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asked.communicate()
    assert Path(said.decode().strip()).is_relative_to(before)


async def test_a_prompt_is_answered_and_read_on_the_newer_schema(client: Client) -> None:
    assert await not_ready(client) == {}
    ended = await works(client)
    told = await client.events(subject=f"generation:{ended['id']}")
    assert [event["type"] for event in told][-1].startswith("generation.completed.")
    whole = await client.get(f"/v1/conversations/{ended['conversation_id']}")
    assert [message["role"] for message in whole["messages"]] == ["user", "assistant"]
