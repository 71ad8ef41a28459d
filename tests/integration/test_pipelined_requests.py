"""Requests that a client sends before it was answered: each concerns whom it concerns."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from backplane.settings import Settings
from backplane.telemetry import logs
from backplane.telemetry.logs import JsonLines
from backplane.web.server import serve_application
from tests.ports import lasting_ports


def app() -> FastAPI:
    made = FastAPI()

    @made.get("/{tenant}")
    async def concerned(tenant: str) -> str:
        before = json.loads(JsonLines("test").format(logging.makeLogRecord({}))).get("tenant_id", "nobody")
        logs.concerns(tenant_id=tenant)
        return f"after {before}"

    return made


async def test_the_next_one_begins_as_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AppStatus, "should_exit", False)  # a service that stops leaves it set
    (port,) = lasting_ports(1)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve_application(app(), Settings(host="127.0.0.1", port=port), stop))
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.01)
            writer.write(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            said = await reader.read()
        writer.close()
        await writer.wait_closed()
    finally:
        stop.set()
        await serving
    assert said.count(b"after nobody") == 2, said
