"""Whom the APIs believe about who asks: the proxies that the compose file and the chart put before them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request

from backplane.settings import Settings
from backplane.web.server import serve_application
from tests.certificates import Authority
from tests.deploy import compose
from tests.deploy.manifests import Manifests, committed
from tests.deploy.running_caddy import caddy
from tests.ports import lasting_ports

APIS = ("gateway", "command-api", "query-api")

FORGED = {"X-Forwarded-For": "198.51.100.6", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example.com"}


def of_compose(service: str) -> str:
    return str(compose.services()[service]["environment"]["FORWARDED_ALLOW_IPS"])


def of_chart(manifests: Manifests, component: str) -> str:
    (value,) = (
        each["value"] for each in manifests.services()[component]["env"] if each["name"] == "FORWARDED_ALLOW_IPS"
    )
    return str(value)


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/seen")
    async def seen(request: Request) -> list[str]:
        assert request.client is not None
        return [request.client.host, str(request.base_url)]

    return app


@pytest.mark.parametrize(
    ("believed", "proxy"),
    [
        *((of_compose(name), proxy) for name in APIS for proxy in ("172.18.0.5", "192.168.16.2")),
        *((of_chart(committed(), name), proxy) for name in APIS for proxy in ("10.244.1.7", "100.64.3.9")),
    ],
)
async def test_a_proxy_is_believed_and_nobody_else(believed: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", believed)
    server = uvicorn.Config(application(), lifespan="off")
    server.load()

    async def seen(peer: str, forwarded_for: str) -> list[str]:
        headers = {"X-Forwarded-For": forwarded_for, "X-Forwarded-Proto": "https"}
        transport = httpx.ASGITransport(server.loaded_app, client=(peer, 40000))
        async with httpx.AsyncClient(transport=transport, base_url="http://parley.example.com") as client:
            answer: list[str] = (await client.get("/seen", headers=headers)).json()
            return answer

    assert await seen(proxy, "203.0.113.7") == ["203.0.113.7", "https://parley.example.com/"]
    # A proxy that adds to what it was sent: the last address is the one that it saw.
    assert (await seen(proxy, "198.51.100.6, 203.0.113.7"))[0] == "203.0.113.7"
    assert await seen("203.0.113.9", "198.51.100.6") == ["203.0.113.9", "http://parley.example.com/"]


def test_only_who_serves_has_it(manifests: Manifests) -> None:
    for component, container in manifests.parley_containers().items():
        names = [each["name"] for each in container["env"]]
        assert names.count("FORWARDED_ALLOW_IPS") == (component in APIS), component


@pytest.mark.cluster
async def test_nobody_tells_caddy_who_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", of_compose("gateway"))
    authority = Authority(tmp_path)
    certificate, key = authority.sign("site")
    (port,) = lasting_ports(1)
    site = {"CADDY_SITE": "https://127.0.0.1", "CADDY_TLS": f"tls {certificate} {key}", "GATEWAY": f"127.0.0.1:{port}"}
    trusted = ssl.create_default_context(cafile=authority.file)
    async with (
        serving(port),
        caddy(tmp_path, **site) as (_, https),
        httpx.AsyncClient(base_url=f"https://127.0.0.1:{https}/", verify=trusted, trust_env=False) as client,
    ):
        assert (await client.get("/seen", headers=FORGED)).json() == ["127.0.0.1", str(client.base_url)]


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = asyncio.create_task(serve_application(application(), Settings(host="127.0.0.1", port=port), stop))
    try:
        yield
    finally:
        stop.set()
        await running
