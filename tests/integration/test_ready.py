"""A container's health check asks the service in it."""

from __future__ import annotations

import asyncio

import pytest
from sse_starlette.sse import AppStatus

from backplane.settings import Settings
from backplane.telemetry.readiness import Readiness
from backplane.web.server import serve_health
from cli import ready
from tests.ports import lasting_ports


async def test_it_says_what_the_service_says(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = lasting_ports(1)
    monkeypatch.setattr(AppStatus, "should_exit", False)  # a service that stops leaves it set
    monkeypatch.setenv("PARLEY_HEALTH_PORT", str(port))
    readiness, stop = Readiness(), asyncio.Event()
    readiness.block("bus", "Pulsar is away")
    serving = asyncio.create_task(serve_health(readiness, Settings(health_port=port), stop))
    try:
        deadline = asyncio.get_running_loop().time() + 30
        while "service" in (found := await asyncio.to_thread(ready.reasons)):
            assert asyncio.get_running_loop().time() < deadline, found
            await asyncio.sleep(0.05)
        assert found == {"bus": "Pulsar is away"}
        readiness.unblock("bus")
        assert await asyncio.to_thread(ready.reasons) == {}
    finally:
        stop.set()
        await serving
    assert "does not answer" in (await asyncio.to_thread(ready.reasons))["service"]
