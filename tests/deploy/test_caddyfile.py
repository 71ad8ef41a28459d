"""Caddy sends each request to a service that knows its route."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pytest
from fastapi import APIRouter, FastAPI

import command_api.main
import query_api.main
from backplane.settings import Settings
from gateway import doors
from tests.deploy.compose import ROOT, services

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


def test_streams_are_not_kept_back() -> None:
    assert "\tflush_interval -1\n" in TEXT
    assert TEXT.count("reverse_proxy") == TEXT.count("import streaming") == len(HANDLES)


def test_the_environment_is_that_of_the_compose_file() -> None:
    caddy = services()["caddy"]
    named = set(re.findall(r"\{\$(\w+)", TEXT))
    assert set(caddy["environment"]) <= named
    for variable, service in SERVICES.items():
        assert caddy["environment"][variable] == f"{service}:8000"
    ports = {port.rpartition(":")[2] for port in caddy["ports"]}
    assert ports == set(re.findall(r"\{\$CADDY_HTTPS?_PORT:(\d+)\}", TEXT))
