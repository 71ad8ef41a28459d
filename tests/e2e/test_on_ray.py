"""A pool's workers as actors of a Ray cluster: they answer, come back when they are killed, and drain."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from backplane.telemetry.status import ASKED_FOR
from tests.chaos.world import in_mid_answer
from tests.e2e.client import Answer, Client
from tests.e2e.running import Up, until
from tests.ports import lasting_ports

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

TOKENS = [f"word{place} " for place in range(60)]
BRIEF = {"tokens": TOKENS, "delay_s": 0.1}
DEADLINE_S = 240.0
TEMPORARY, CONFIGURATION = 75, 78


class Cluster:
    """`ray start --head`, with the settings of ``installation``: a node's own are what its workers have."""

    def __init__(self, folder: Path, installation: Up) -> None:
        gcs, dashboard, agent, client, node, objects, runtime, metrics = lasting_ports(8)
        self.address = f"127.0.0.1:{gcs}"
        self._log = folder / "ray.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
                    *("--node-ip-address=127.0.0.1", f"--port={gcs}", "--num-cpus=2", "--disable-usage-stats"),
                    *("--include-dashboard=false", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"),
                    *(f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"),
                    *(f"--node-manager-port={node}", f"--object-manager-port={objects}"),
                    *(f"--runtime-env-agent-port={runtime}", f"--metrics-export-port={metrics}"),
                    "--object-store-memory=80000000",
                ],
                env=installation.environment | {"RAY_worker_register_timeout_seconds": "200"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while "Ray runtime started" not in (said := self._log.read_text()):
            assert self._process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def actors(self) -> list[psutil.Process]:
        """The processes of the pool's workers."""
        return [each for each in self._children() if _title(each).startswith("ray::RayWorker")]

    def end(self) -> None:
        everything = self._children()
        self._process.terminate()
        self._process.wait(timeout=DEADLINE_S)
        for each in everything:
            if each.is_running():
                each.kill()

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@pytest.fixture(scope="module")
def installation(short_folder: Path) -> Up:
    """One that does not run."""
    return Up(short_folder / "on-ray")


@pytest.fixture(scope="module")
def up(installation: Up) -> Iterator[Up]:
    """Its own worker stands still, so that nobody answers but those on Ray."""
    up = installation
    try:
        up.start()
        up.ready()
        own = up.child("worker --pool local")
        own.suspend()
        yield up
        own.resume()
        assert up.stop() == 0
    finally:
        up.end()


@pytest.fixture(scope="module")
def cluster(short_folder: Path, installation: Up) -> Iterator[Cluster]:
    folder = short_folder / "ray"
    folder.mkdir()
    cluster = Cluster(folder, installation)
    try:
        cluster.ready()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture
async def client(up: Up) -> AsyncIterator[Client]:
    async with Client(up.url, up.admin_key) as client:
        yield client


@contextmanager
def pool_of(up: Up, cluster: Cluster, workers: int) -> Iterator[subprocess.Popen[bytes]]:
    """`parley worker --ray`, once its workers work."""
    with (up.folder / "driver.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "cli.main", "worker", "--pool", "local", "--ray"),
                *("--ray-address", cluster.address, "--workers", str(workers)),
            ],
            cwd=up.folder,
            env=up.environment | {ASKED_FOR: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (up.folder / "driver.log").read_text()
        assert json.loads(line) == {"ready": True, "detail": f"pool local, {workers} workers on Ray, 8 slots each"}
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


async def test_prompts_are_answered_killed_workers_come_back_and_sigterm_drains(
    up: Up, cluster: Cluster, client: Client
) -> None:
    with pool_of(up, cluster, workers=2) as driver:
        first = cluster.actors()
        assert len(first) == 2

        accepted = await client.submit("Who is there?", script={"tokens": ["An ", "actor."]})
        ended = await client.ended(accepted["generation_id"])
        assert (ended["status"], ended["content"]) == ("completed", "An actor.")

        killed = Answer()
        following = await followed(client, killed)
        for each in first:
            each.kill()
        await following
        assert (killed.told[-1], killed.text, killed.attempt) == ("completed", "".join(TOKENS), 2)
        again = {each.pid for each in cluster.actors()}
        assert again
        assert not again & {each.pid for each in first}

        drained = Answer()
        following = await followed(client, drained)
        driver.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(driver.wait, DEADLINE_S) == 0, (up.folder / "driver.log").read_text()
        await following
        assert (drained.told[-1], drained.text, drained.attempt) == ("completed", "".join(TOKENS), 1)
    until(lambda: not cluster.actors(), "workers are left on Ray")


async def followed(client: Client, answer: Answer) -> asyncio.Task[Answer]:
    """A prompt whose answer is under way."""
    accepted = await client.submit("Count.", script=BRIEF)
    following = asyncio.create_task(client.follow_through(accepted["generation_id"], answer, within=DEADLINE_S))
    await in_mid_answer(answer)
    return following


def test_without_a_cluster_it_says_so_and_ends(installation: Up) -> None:
    (port,) = lasting_ports(1)
    where = ("--ray", "--ray-address", f"127.0.0.1:{port}")
    said = installation.parley("worker", "--pool", "local", *where, code=TEMPORARY)
    assert f"there is no Ray cluster at 127.0.0.1:{port}" in said


def test_a_worker_whose_node_does_not_know_the_pool_ends_it_all(installation: Up, cluster: Cluster) -> None:
    said = installation.parley(
        *("worker", "--pool", "other", "--ray", "--ray-address", cluster.address),
        code=CONFIGURATION,
        PARLEY_POOLS=json.dumps({"other": {"backend": "scripted", "models": ["script"]}}),
    )
    assert "worker 1 on Ray: there is no pool 'other' on this node; it has local" in said
    until(lambda: not cluster.actors(), "workers are left on Ray")
