"""Everything that dashboards and rules ask has an answer while a Parley works."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from backplane.settings import Settings
from backplane.wiring.operations import operator_bus
from event_schemas.topics import commands
from tests.e2e.client import Client, eventually
from tests.e2e.running import Up, free_port
from tests.e2e.test_telemetry import free_ports
from tests.observability.queries import ALERTS, all_queries

pytestmark = [pytest.mark.prometheus, pytest.mark.timeout(300)]

POOLS = {
    "local": {"backend": "scripted", "models": ["script"]},
    "limited": {"backend": "scripted", "models": ["limited"]},
    "cloud": {
        "backend": "openai",
        "base_url": "http://127.0.0.1:9/v1",
        "models": ["nobody-answers"],
        "keys": ["a key"],
        "requests_per_minute": 500,
        "tries": 2,
    },
}


@pytest.fixture
def health_port() -> int:
    return free_ports(len(POOLS) + 2)


@pytest.fixture
def parley(short_folder: Path, health_port: int) -> Iterator[Up]:
    up = Up(
        short_folder / "observed",
        PARLEY_POOLS=json.dumps(POOLS),
        PARLEY_HEALTH_PORT=str(health_port),
        PARLEY_WORKER__MAX_ATTEMPTS="1",
    )
    with up.serving():
        yield up


@pytest.fixture
async def prometheus(tmp_path: Path, parley: Up, health_port: int) -> AsyncIterator[httpx.AsyncClient]:
    """One that runs our rules, once a second, on the services of ``parley``."""
    others = [f"127.0.0.1:{port}" for port in range(health_port, health_port + len(POOLS) + 2)]
    targets = [
        {"targets": [f"127.0.0.1:{parley.port}"], "labels": {"service": "gateway"}},
        {"targets": others},
    ]
    changed: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(file) for file in ALERTS],
        "scrape_configs": [{"job_name": "parley", "static_configs": targets}],
    }
    config = tmp_path / "prometheus.yaml"
    config.write_text(yaml.safe_dump(changed))
    address = f"127.0.0.1:{free_port()}"
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:

            async def ready() -> bool:
                try:
                    return (await client.get("/-/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(ready, bool)
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)


@asynccontextmanager
async def load(client: Client) -> AsyncIterator[None]:
    """Prompts of every outcome, again and again while this is open."""
    answer = await client.http.put("/v1/limits/model/limited", json={"requests_per_minute": 1})
    assert answer.status_code == 200, answer.text
    script = {"count": 20, "delay_s": 0.01}

    async def answered() -> None:
        while True:
            await client.follow((await client.submit("talk", model="script", script=script))["generation_id"])

    async def not_answered() -> None:
        while True:
            for model in ("limited", "nobody-answers"):
                assert (await client.post_prompt("talk", model=model)).status_code in (202, 429)
            assert (await client.http.get("/nothing")).status_code == 404
            await asyncio.sleep(0.25)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one()) for one in (answered, answered, not_answered)]
        yield
        for task in running:
            task.cancel()


async def _values(prometheus: httpx.AsyncClient, query: str) -> list[float]:
    """Numbers only: what has no observations is not one."""
    answer = (await prometheus.get("/api/v1/query", params={"query": query})).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    values = [float(one["value"][1]) for one in answer["data"]["result"]]
    return [value for value in values if not math.isnan(value)]


async def test_every_query_has_an_answer(parley: Up, prometheus: httpx.AsyncClient) -> None:
    missing = all_queries()
    assert len(missing) > 40
    settings = Settings(data_dir=parley.data, pools=json.loads(json.dumps(POOLS)))
    async with Client(parley.url, parley.admin_key) as client, load(client):
        async with operator_bus(settings) as bus:
            await bus.publish(commands("local"), b"{}")

        async def still_missing() -> dict[str, str]:
            for query in list(missing):
                if await _values(prometheus, query):
                    del missing[query]
            return missing

        await eventually(still_missing, lambda left: not left, within=150)

        async def alerts() -> dict[str, str]:
            told = (await prometheus.get("/api/v1/rules")).json()["data"]["groups"]
            told_rules = [rule for group in told for rule in group["rules"]]
            assert {rule["health"] for rule in told_rules} == {"ok"}
            return {rule["name"]: rule["state"] for rule in told_rules if rule["type"] == "alerting"}

        noticed = await eventually(alerts, lambda found: found["ParleyDeadLetters"] != "inactive")
        assert noticed["ParleyServiceDown"] == "inactive"
