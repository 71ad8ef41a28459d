"""Servers that tests may break, and one Parley on them."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.chaos.world import World
from tests.conftest import start_postgres, start_valkey
from tests.e2e.client import Client
from tests.e2e.running import Up

_DISK_MB = 160
_AROUND_THE_KILLS_S = 660.0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name == "test_kill_at_random.py":
            seconds: float = config.getoption("--chaos-seconds")
            item.add_marker(pytest.mark.timeout(seconds + _AROUND_THE_KILLS_S))


@pytest.fixture(scope="session")
def world(short_folder: Path) -> Iterator[World]:
    """Shared by the tests of outages. Postgres has a small disk where the machine lets us mount one."""
    folder = short_folder / "outages"
    disk = folder / "servers" / "postgres"
    disk.mkdir(parents=True)
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m,mode=700", "tmpfs", disk], capture_output=True, text=True
    )
    postgres = valkey = up = None
    try:
        postgres = start_postgres(folder / "servers")
        valkey = start_valkey(folder / "servers")
        up = Up(
            folder,
            PARLEY_POSTGRES__URL=postgres.owner_url(),
            PARLEY_REDIS__URL=valkey.url,
            PARLEY_BUS__LEASE_S="1",
            PARLEY_WORKER__LEASE_S="1",
            PARLEY_READ_YOUR_WRITES_S="1",
            # Prompts go on while Redis is away; the record has them counted afterwards.
            PARLEY_LIMITS__UNCOUNTED="admit",
        )
        up.start()
        up.ready()
        yield World(up, postgres, valkey, disk if mount.returncode == 0 else None, mount.stderr.strip())
        assert up.stop() == 0
    finally:
        if up is not None:
            up.end()
        for server in (postgres, valkey):
            if server is not None:
                server.server.stop()
        if mount.returncode == 0:
            subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    async with Client(world.up.url, world.up.admin_key) as opened:
        yield opened
