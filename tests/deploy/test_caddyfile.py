"""Caddy sends each request to a service that knows its route."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI

import command_api.main
import query_api.main
from backplane.settings import Settings
from gateway import doors
from tests.deploy.compose import ROOT, services
from tests.deploy.running_caddy import caddy

CLUSTER_PAGE = (ROOT / "docs/running/cluster.md").read_text()
TEXT = (ROOT / "deploy/caddy/Caddyfile").read_text()

SERVICES = {"GATEWAY": "gateway", "COMMAND_API": "command-api", "QUERY_API": "query-api"}


@dataclass(frozen=True)
class Matcher:
    methods: Sequence[str]
    paths: Sequence[str]

    def takes(self, method: str, path: str) -> bool:
        return (not self.methods or method in self.methods) and any(fnmatchcase(path, one) for one in self.paths)


def matchers() -> dict[str, Matcher]:
    """By name; each is written in one line or as a block of `method` and `path`."""
    found = {}
    for name, line, block in re.findall(r"^\t\t@(\w+) (?:(path .*)|\{\n((?:\t\t\t.*\n)+)\t\t\})$", TEXT, re.MULTILINE):
        words = {
            kind: rest.split() for kind, rest in re.findall(r"^\s*(method|path) (.*)$", line or block, re.MULTILINE)
        }
        found[name] = Matcher(words.get("method", []), words["path"])
    return found


def handles() -> list[tuple[str | None, str]]:
    """Matcher (None: whatever is left) and service, in the order in which Caddy tries them."""
    found = re.findall(r"^\t\thandle (?:@(\w+) )?\{\n\t\t\treverse_proxy \{\$(\w+):(\S+):8000\}", TEXT, re.MULTILINE)
    assert all(SERVICES[variable] == default for _, variable, default in found)
    return [(name or None, default) for name, _, default in found]


MATCHERS, HANDLES = matchers(), handles()


def service_of(method: str, path: str) -> str:
    return next(service for name, service in HANDLES if name is None or MATCHERS[name].takes(method, path))


def routes(routers: Sequence[APIRouter]) -> Iterator[tuple[str, str]]:
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            yield method.upper(), re.sub(r"\{[^}]*\}", "0199-x", path)


@pytest.mark.parametrize(
    ("service", "routers"),
    [
        ("command-api", command_api.main.ROUTERS),
        ("query-api", query_api.main.ROUTERS),
        ("gateway", [door.router for door in doors.of(Settings().doors)]),
    ],
)
def test_each_route_is_reached(service: str, routers: Sequence[APIRouter]) -> None:
    found = list(routes(routers))
    assert len(found) > 20
    assert [one for one in found if service_of(*one) != service] == []


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/gpt-socket", "/healthz"])
def test_what_is_left_is_the_gateways(path: str) -> None:
    assert service_of("GET", path) == "gateway"


def test_every_handle_is_read_here() -> None:
    # `handle_errors` has one of its own.
    assert len(HANDLES) == len(re.findall(r"^\t\thandle (?!@away)", TEXT, re.MULTILINE)) == 6
    assert {name for name, _ in HANDLES if name} | {"private"} == set(MATCHERS)


def test_metrics_are_not_for_everybody() -> None:
    assert MATCHERS["private"].paths == ["/metrics", "/readyz"]
    assert "\t\trespond @private 404\n" in TEXT


def test_nor_in_the_caddyfile_of_the_page_on_clusters() -> None:
    shown = re.findall(r"^cat > \S*Caddyfile <<'CADDY'\n(.*?)^CADDY$", CLUSTER_PAGE, re.MULTILINE | re.DOTALL)
    assert len(shown) == 1
    assert "\t@private path /metrics /readyz\n\trespond @private 404\n" in shown[0]


def test_streams_are_not_kept_back() -> None:
    assert "\tflush_interval -1\n" in TEXT
    assert TEXT.count("reverse_proxy") == TEXT.count("import streaming") == len(HANDLES)


@pytest.mark.cluster
async def test_who_gets_no_answer_hears_what_to_do(tmp_path: Path) -> None:
    """It cannot be told whether the request was done: Caddy does not send it again, and says how to."""
    came: list[bytes] = []

    async def takes_and_goes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.readuntil(b"\r\n"))
        writer.close()

    service = await asyncio.start_server(takes_and_goes, "127.0.0.1", 0)
    address = f"127.0.0.1:{service.sockets[0].getsockname()[1]}"
    async with service, caddy(tmp_path, COMMAND_API=address) as (http, _), httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{http}/v1/prompts", json={"input": "x"}, timeout=20)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "Idempotency-Key" in answer.text
    assert came == [b"POST /v1/prompts HTTP/1.1\r\n"]


def test_the_environment_is_that_of_the_compose_file() -> None:
    caddy = services()["caddy"]
    named = set(re.findall(r"\{\$(\w+)", TEXT))
    assert set(caddy["environment"]) <= named
    for variable, service in SERVICES.items():
        assert caddy["environment"][variable] == f"{service}:8000"
    ports = {port.rpartition(":")[2] for port in caddy["ports"]}
    assert ports == set(re.findall(r"\{\$CADDY_HTTPS?_PORT:(\d+)\}", TEXT))
