"""One running Parley for all clients, with providers behind it that call tools and keep to schemas."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from tests.clients.busy import Busy
from tests.e2e.conftest import Callers
from tests.e2e.running import Up
from tests.providers.server import Providers, providers

HERE = Path(__file__).parent
DEADLINE_S = 200.0


@dataclass(frozen=True)
class Ran:
    """How a program ended, and what it said."""

    code: int
    said: str


class World:
    """What the clients of the tests talk to."""

    def __init__(self, up: Up, server: Providers, callers: Callers) -> None:
        self.up = up
        self.server = server
        self.callers = callers

    @asynccontextmanager
    async def running(self, *command: str | Path, **environment: str) -> AsyncIterator[Process]:
        """A program that is told of no server but by ``environment``; ended with the block."""
        process = await asyncio.create_subprocess_exec(
            *command, cwd=HERE, env=_bare(os.environ) | environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def run(self, *command: str | Path, **environment: str) -> Ran:
        """The same, to its end."""
        async with asyncio.timeout(DEADLINE_S), self.running(*command, **environment) as process:
            said, _ = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, said.decode())

    async def passes(self, *command: str | Path) -> None:
        """Tests in another language or environment: they get an admin's key, and one whose limit is in the way until
        it was met twice.
        """
        admin = await self.callers.admin()
        async with Busy.of(admin) as busy, asyncio.TaskGroup() as beside:
            freeing = beside.create_task(busy.free(after=2))
            known = {"PARLEY_URL": self.up.url, "PARLEY_KEY": admin.key, "PARLEY_BUSY_KEY": busy.key}
            ran = await self.run(*command, **known)
            freeing.cancel()
        assert ran.code == 0, ran.said


def _bare(environment: Mapping[str, str]) -> dict[str, str]:
    """Less what would tell clients of other servers."""
    other = ("PARLEY_", "OPENAI_", "ANTHROPIC_", "LLM_", "LANGCHAIN_", "LANGSMITH_", "PYTEST_")
    return {name: value for name, value in environment.items() if not name.startswith(other)}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(short_folder: Path) -> AsyncIterator[World]:
    async with providers() as server, AsyncExitStack() as open_clients:
        pools: dict[str, object] = {"local": {"backend": "scripted", "models": ["script"], "slots": 8}}
        for name, backend, base_url, model in (
            ("fast", "openai", server.openai_url, "gpt-4o-mini"),
            ("tools", "openai", server.openai_url, "gpt-4o-mini"),
            ("claude", "anthropic", server.url, "claude-haiku-4-5"),
        ):
            server.add_key(f"sk-{name}")
            pools[name] = {
                "backend": backend,
                "base_url": base_url,
                "models": [{name: model}],
                "keys": [f"sk-{name}"],
                "requests_per_minute": 10_000,
            }
        up = Up(short_folder / "clients", PARLEY_POOLS=json.dumps(pools), PARLEY_REFUSALS_WINDOW_S="0.1")
        try:
            up.start()
            await asyncio.to_thread(up.ready)
            yield World(up, server, Callers(up, open_clients))
            assert await asyncio.to_thread(up.stop) == 0, up.output
        finally:
            up.end()


def programs_of(client: str) -> Path:
    """Where they are in the environment of a client that is installed apart."""
    return HERE / client / ".venv" / ("Scripts" if sys.platform == "win32" else "bin")
