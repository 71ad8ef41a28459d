"""The Caddyfile, run by the Caddy of this machine."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.deploy.compose import ROOT
from tests.ports import lasting_ports


@asynccontextmanager
async def caddy(folder: Path, **variables: str) -> AsyncIterator[tuple[int, int]]:
    """Its ports for HTTP and HTTPS, once it listens on what the site of ``variables`` needs."""
    http, https, health = lasting_ports(3)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "CADDY_HTTP_PORT": str(http),
        "CADDY_HTTPS_PORT": str(https),
        "CADDY_HEALTH_PORT": str(health),
        **variables,
    }
    argv = ("caddy", "run", "--config", str(ROOT / "deploy/caddy/Caddyfile"), "--adapter", "caddyfile")
    process = await asyncio.create_subprocess_exec(*argv, env=environment, stderr=asyncio.subprocess.DEVNULL)
    try:
        await _listens(https if variables.get("CADDY_SITE", "http://").startswith("https://") else http)
        yield http, https
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def _listens(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        await asyncio.sleep(0.1)
    raise AssertionError("Caddy does not listen")
