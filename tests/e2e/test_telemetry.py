"""What operators see of a running Parley: probes and metrics of every service, traces, logs."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from event_schemas.generation import GenerationCompleted, GenerationStarted, SubmitPrompt
from tests.collector import Collected, Collector, collector
from tests.e2e.canary import Canary
from tests.e2e.client import Client, eventually
from tests.e2e.running import Up

SERVICES = ("gateway", "projections", "worker-local", "ingest")


def free_ports(count: int) -> int:
    """The first of so many in a row that nobody listens on."""
    for first in range(20_000 + secrets.randbelow(10_000), 60_000, count):
        with ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no port is free")


@pytest.fixture(scope="module")
def traces() -> Iterator[Collector]:
    with collector() as collecting:
        yield collecting


@pytest.fixture(scope="module")
def health_port() -> int:
    return free_ports(3)


@pytest.fixture(scope="module")
def parley(short_folder: Path, traces: Collector, health_port: int) -> Iterator[Up]:
    up = Up(
        short_folder / "telemetry",
        PARLEY_HEALTH_PORT=str(health_port),
        OTEL_EXPORTER_OTLP_ENDPOINT=traces.url,
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    with up.serving():
        yield up


@pytest.fixture
async def client(parley: Up) -> AsyncIterator[Client]:
    async with Client(parley.url, parley.admin_key) as client:
        yield client


@pytest.fixture
def urls(parley: Up, health_port: int) -> dict[str, str]:
    """Where each service answers probes."""
    ports = (parley.port, health_port, health_port + 1, health_port + 2)
    return {service: f"http://127.0.0.1:{port}" for service, port in zip(SERVICES, ports, strict=True)}


@pytest.mark.parametrize(
    ("service", "own"),
    [
        ("gateway", "parley_stream_followers"),
        ("projections", "parley_projections_lag_seconds"),
        ("worker-local", "parley_pool_backlog"),
        ("ingest", "parley_dead_letters"),
    ],
)
async def test_every_service_answers_probes_and_tells_metrics(urls: dict[str, str], service: str, own: str) -> None:
    async with httpx.AsyncClient(base_url=urls[service]) as asking:
        assert (await asking.get("/healthz")).json() == {"status": "ok"}
        ready = await asking.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "not_ready": {}})
        told = text_string_to_metric_families((await asking.get("/metrics")).text)
        assert own in {family.name for family in told}


class Traced:
    """A prompt of a client that traces, streamed to its end."""

    def __init__(self, client: Client, *, flags: str) -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.canary = Canary(f"canary{secrets.token_hex(16)}")
        self._client = client
        self._headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-{flags}"}

    async def run(self) -> str:
        """Its generation's id."""
        word = self.canary.word
        body = {"input": f"sing of {word}", "metadata": {"script": json.dumps({"tokens": [word, " sings"]})}}
        accepted = await self._client.http.post("/v1/prompts", json=body, headers=self._headers)
        assert accepted.status_code == 202, accepted.text
        stream = await self._client.http.get(accepted.json()["stream_url"], headers=self._headers)
        assert "event: completed" in stream.text
        generation_id: str = accepted.json()["generation_id"]
        return generation_id


WAY = {
    ("gateway", "POST /v1/prompts"),
    ("gateway", "admission"),
    ("gateway", "publish commands-local"),
    ("worker-local", "queue"),
    ("worker-local", "attempt"),
    ("worker-local", "chat script"),
    ("gateway", "GET /v1/generations/{generation_id}/stream"),
    ("gateway", "follow"),
    ("projections", "fold"),
}


def _folded(spans: list[Collected]) -> set[str]:
    return {event for one in spans if one.span.name == "fold" for event in one.attributes["parley.events"].split(",")}


async def test_one_trace_shows_the_way_of_a_prompt(client: Client, traces: Collector) -> None:
    unsampled, prompt = Traced(client, flags="00"), Traced(client, flags="01")
    await unsampled.run()
    generation_id = await prompt.run()

    async def collected() -> list[Collected]:
        return traces.of(prompt.trace_id)

    def is_whole(spans: list[Collected]) -> bool:
        told = {(one.service, one.span.name) for one in spans}
        return told >= WAY and GenerationCompleted.wire_name in _folded(spans)

    spans = await eventually(collected, is_whole)
    assert {(one.service, one.span.name) for one in spans} == WAY
    ids = {one.id for one in spans}
    assert len(ids) == len(spans)
    parents = {one.span.name: one.parent for one in spans}
    assert {parent for parent in parents.values() if parent not in ids} == {prompt.span_id}
    named = {one.span.name: one for one in spans}
    post, attempt, call = named["POST /v1/prompts"], named["attempt"], named["chat script"]
    assert post.parent == named["GET /v1/generations/{generation_id}/stream"].parent == prompt.span_id
    assert all(parents[name] == post.id for name in ("admission", "publish commands-local", "queue", "attempt", "fold"))
    assert call.parent == attempt.id
    assert parents["follow"] == named["GET /v1/generations/{generation_id}/stream"].id
    assert attempt.attributes["parley.generation.id"] == generation_id
    assert attempt.attributes["parley.outcome"] == "GenerationCompleted"
    assert call.attributes["gen_ai.request.model"] == "script"
    assert int(call.attributes["gen_ai.usage.output_tokens"]) == 2
    assert [event.name for event in named["follow"].span.events] == ["first_token"]
    assert _folded(spans) == {one.wire_name for one in (SubmitPrompt, GenerationStarted, GenerationCompleted)}
    for one in spans:
        assert one.span.end_time_unix_nano >= one.span.start_time_unix_nano
        assert not prompt.canary.is_in(one.span.SerializeToString())
        assert client.key.encode() not in one.span.SerializeToString()
    assert traces.of(unsampled.trace_id) == []


async def test_a_key_in_a_url_is_in_no_span_and_in_no_line(parley: Up, client: Client, traces: Collector) -> None:
    """As clients of earlier systems send it."""
    saved = await client.http.post("/v1/personas", json={"name": "url", "definition": {"system": "You whisper."}})
    assert saved.status_code == 201, saved.text
    made = (await client.http.post("/v1/api-keys", json={"name": "in a URL"})).json()
    key, trace_id = made["key"], secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    query = f"key={key}&prompt=Hello"
    async with httpx.AsyncClient(base_url=parley.url, headers=headers, timeout=30, trust_env=False) as nobody:
        for persona, status in (("url", 200), ("nobody", 404)):
            answer = await nobody.get(f"/gpt/{persona}?{query}")
            assert answer.status_code == status, answer.text
    url = f"{parley.url.replace('http', 'ws')}/gpt-socket/url?key={key}"
    async with connect(url, proxy=None, additional_headers=headers) as socket:
        await socket.send("Hello?")
        while not str(await socket.recv()).startswith("<END"):
            pass

    async def answered() -> list[Collected]:
        return [one for one in traces.of(trace_id) if GenerationCompleted.wire_name in str(one.attributes)]

    # One of the GET, one of the socket.
    await eventually(answered, lambda spans: len(spans) == 2)
    assert "GET /gpt/{persona}" in {one.span.name for one in traces.of(trace_id)}
    secret = key.rpartition("_")[2]
    assert len(secret) > 20
    for one in traces.all:
        assert secret.encode() not in one.span.SerializeToString()
    for line in _lines(parley):
        assert secret not in json.dumps(line)


def _lines(parley: Up) -> list[dict[str, Any]]:
    """Without what services tell their supervisor, which puts some of it beside them."""
    found = []
    for service in SERVICES:
        for line in (parley.data / "logs" / f"{service}.log").read_text().splitlines():
            assert line.startswith("{"), f"{service} wrote what is no JSON: {line}"
            found.append(json.loads(line))
    return [line for line in found if not line.keys() <= {"blocked", "why"}]


OURS = ("backplane", "cli", "command_api", "gateway", "projections", "query_api", "workers")


async def test_lines_say_whose_they_are_and_nothing_of_what_was_written(parley: Up, client: Client) -> None:
    prompt = Traced(client, flags="01")
    generation_id = await prompt.run()

    async def recorded() -> list[dict[str, Any]]:
        told = await client.events(type=SubmitPrompt.wire_name)
        return [one for one in told if one["data"]["generation_id"] == generation_id]

    [submitted] = await eventually(recorded, bool)

    async def about() -> dict[str, dict[str, Any]]:
        return {line["action"]: line for line in _lines(parley) if line.get("generation_id") == generation_id}

    lines = await eventually(about, lambda found: {"prompt_accepted", "attempt_ended"} <= found.keys())
    for action in ("prompt_accepted", "attempt_ended"):
        line = lines[action]
        assert line["tenant_id"] == submitted["tenantid"]
        assert line["correlation_id"] == submitted["correlationid"]
        assert line["trace_id"] == prompt.trace_id
    assert "request_id" in lines["prompt_accepted"]
    for line in _lines(parley):
        assert {"time", "level", "service", "logger", "message"} <= line.keys()
        assert "action" in line or line["logger"].split(".")[0] not in OURS
        assert not prompt.canary.is_in(json.dumps(line).encode())
        assert client.key not in json.dumps(line)
