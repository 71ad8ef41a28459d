"""What the manifests start, started on this machine: each container's own command and environment, and its own probes.

What differs is where the servers are, and the ports, since all are in one place here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import TestDatabase, ValkeyServer
from tests.deploy.manifests import Object, committed
from tests.e2e.running import free_port

pytestmark = pytest.mark.model

_DEADLINE_S = 90.0


@dataclass(frozen=True)
class World:
    database: TestDatabase
    valkey: ValkeyServer
    folder: Path

    def environment(self, component: str, container: Object, port: int) -> dict[str, str]:
        def secret(key: str) -> str:
            if key == "redis-url":
                return self.valkey.url
            if key == "postgres-owner-url":
                return self.database.owner_url
            if key.startswith("postgres-"):
                return self.database.role_url(key.removeprefix("postgres-").removesuffix("-url").replace("-", "_"))
            return {"key-pepper": "11", "master-key": "22", "signing-key": "33"}.get(key, "44") * 32

        environment = {"PATH": os.environ["PATH"]}
        for each in container["env"]:
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            environment[each["name"]] = each["value"] if reference is None else secret(reference["key"])
        environment["PARLEY_DATA_DIR"] = str(self.folder / component)
        environment["HOME"] = str(self.folder)
        # The bus is in Postgres here: a broker takes longer to start than all of these.
        bus = json.loads(environment["PARLEY_BUS"])
        environment["PARLEY_BUS"] = json.dumps({name: value for name, value in bus.items() if name != "pulsar"})
        if "PARLEY_HOST" in environment:
            environment["PARLEY_HOST"] = "127.0.0.1"
            environment["PARLEY_PORT" if "PARLEY_PORT" in environment else "PARLEY_HEALTH_PORT"] = str(port)
        return environment

    @asynccontextmanager
    async def started(
        self, component: str, container: Object, port: int = 0
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        assert container["command"] == ["parley"]
        with (self.folder / f"{component}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "cli.main", *container["args"]),
                env=self.environment(component, container, port),
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def log(self, component: str) -> str:
        return (self.folder / f"{component}.log").read_text()[-3000:]


@pytest.fixture
def world(database: TestDatabase, valkey_server: ValkeyServer, tmp_path: Path) -> World:
    return World(database, valkey_server, tmp_path)


async def run_service(world: World, component: str, template: Object) -> None:
    """Start it, until its readiness probe passes; then end it as a pod ends. Fails as Kubernetes would."""
    container = template["spec"]["containers"][0]
    port = free_port()
    async with world.started(component, container, port) as process, httpx.AsyncClient(trust_env=False) as client:
        address = f"http://127.0.0.1:{port}"

        async def passes(probe: str) -> bool:
            try:
                answer = await client.get(address + container[f"{probe}Probe"]["httpGet"]["path"], timeout=5)
            except httpx.TransportError:
                return False
            return answer.is_success

        async with asyncio.timeout(_DEADLINE_S):
            while not await passes("readiness"):
                assert process.returncode is None, world.log(component)
                await asyncio.sleep(0.1)
        assert await passes("liveness")
        assert "parley_" in (await client.get(address + "/metrics")).text
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(template["spec"]["terminationGracePeriodSeconds"]):
            assert await process.wait() == 0, world.log(component)


@pytest.mark.timeout(300)
async def test_containers_of_the_manifests_get_ready_and_end(world: World) -> None:
    manifests = committed()
    async with world.started("migrate", manifests.parley_containers()["migrate"]) as migrating:
        async with asyncio.timeout(_DEADLINE_S):
            assert await migrating.wait() == 0, world.log("migrate")
    services = [(name, template) for name, template in manifests.workloads() if name in manifests.services()]
    assert {"worker-local", "worker-cloud"} <= {name for name, _ in services}
    async with asyncio.TaskGroup() as tasks:
        for component, template in services:
            tasks.create_task(run_service(world, component, template))
