"""The record, usage and metrics over HTTP."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from datetime import datetime, timedelta

import pytest
import rfc8785
from prometheus_client.parser import text_string_to_metric_families

from projections.catalog import PROJECTIONS
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)


async def test_usage_adds_up_however_it_is_grouped(callers: Callers) -> None:
    tenant = await callers.tenant()
    admin = await callers.caller(tenant, "admin")
    ada, bob = [await callers.caller(tenant, "member", name) for name in ("ada", "bob")]
    second_of_ada = await callers.caller(tenant, "member", "ada")
    begin = datetime.fromisoformat("2020-01-01T00:00:00+00:00")
    for client, count in ((admin, 1), (ada, 2), (second_of_ada, 3), (bob, 4)):
        for tokens in range(1, count + 1):
            accepted = await client.submit("one two three", script={"count": tokens})
            await client.ended(accepted["generation_id"])
    total = {"generations": 10, "attempts": 10, "estimated_attempts": 0, "input_tokens": 30, "output_tokens": 20}
    groups = {}
    for group_by in ("model", "user", "key", "day"):
        report = await admin.get("/v1/usage", group_by=group_by, **{"from": begin.isoformat()})
        groups[group_by] = report["groups"]
        assert report["group_by"] == group_by
        assert {name: sum(group[name] for group in report["groups"]) for name in total} == total
    assert [group["group"] for group in groups["model"]] == ["script"]
    assert sorted(group["generations"] for group in groups["user"]) == [1, 4, 5]
    assert [group["generations"] for group in groups["user"] if group["group"] is None] == [1]
    assert sorted(group["generations"] for group in groups["key"]) == [1, 2, 3, 4]
    # What lies outside of the span is not in it.
    for span in (
        {"to": "2020-01-02T00:00:00Z", "from": "2020-01-01T00:00:00Z"},
        {"from": "2100-01-01", "to": "2100-01-02"},
    ):
        assert (await admin.get("/v1/usage", **span))["groups"] == []
    mine = (await ada.get("/v1/usage", group_by="key"))["groups"]
    assert sorted(group["generations"] for group in mine) == [2, 3]


async def told(client: Client, accepted: Json) -> list[Json]:
    """All lines about a generation that has ended, its prompt first."""
    await client.ended(accepted["generation_id"])
    return await eventually(
        lambda: lines(client, subject=f"generation:{accepted['generation_id']}"),
        lambda found: bool(found) and found[0]["type"] == "prompt.submit.v3",
    )


async def lines(client: Client, **filters: str) -> list[Json]:
    """Commands before events: they come from topics of their own, so a prompt may stand behind its answer."""
    return sorted(await client.events(**filters), key=lambda one: one["type"] != "prompt.submit.v3")


async def test_the_record_tells_the_whole_story_and_its_chain_holds(admin: Client) -> None:
    accepted = await admin.submit("talk", script={"count": 5, "delay_s": 0.1}, metadata={"k": "v"})
    story = await told(admin, accepted)
    kinds = [one["type"] for one in story]
    assert kinds[0] == "prompt.submit.v3"
    assert kinds[1] == "generation.started.v1"
    assert set(kinds[2:-1]) == {"tokens.emitted.v3"}
    assert kinds[-1] == "generation.completed.v3"
    submitted = story[0]
    assert {one["correlationid"] for one in story} == {submitted["id"]}
    assert {one["causationid"] for one in story} == {submitted["id"]}
    assert story[0]["actor"].startswith("key:")
    assert all(one["actor"].startswith("worker:") for one in story[1:])
    assert sum(one["data"]["count"] for one in story[2:-1]) <= story[-1]["data"]["deltas"] == 5
    # What was written stands in it encrypted.
    assert {tuple(one["data"]["content"]) for one in (story[0], *story[2:])} == {("commitment", "sealed")}
    assert "talk" not in json.dumps(story)
    # Every line follows from the one before it: sha256(hash before + the canonical form of the envelope).
    response = await admin.http.get("/v1/events", params={"format": "ndjson"})
    assert response.headers["content-type"].startswith("application/x-ndjson")
    previous = bytes(32)
    for place, line in enumerate(response.content.splitlines(), 1):
        parsed = json.loads(line)
        for member in parsed["event"]["data"].values():
            if isinstance(member, dict) and "commitment" in member:
                member["sealed_sha256"] = hashlib.sha256(member.pop("sealed").encode()).hexdigest()
        previous = hashlib.sha256(previous + rfc8785.dumps(parsed["event"])).digest()
        assert (parsed["sequence"], parsed["hash"]) == (place, previous.hex())


async def test_the_record_is_filtered_and_read_page_by_page(callers: Callers) -> None:
    tenant = await callers.tenant()
    admin, ada = await callers.caller(tenant, "admin"), await callers.caller(tenant, "member", "ada")
    prompts = [await client.submit("x") for client in (admin, ada, admin)]
    stories = [await told(admin, accepted) for accepted in prompts]
    everything = await admin.events()
    completed = await admin.events(type="generation.completed.v3")
    assert {one["data"]["generation_id"] for one in completed} == {one["generation_id"] for one in prompts}
    assert len(completed) == 3
    assert await lines(admin, correlation_id=stories[1][0]["id"]) == stories[1]
    actor = stories[1][0]["actor"]
    assert actor.startswith("user:")
    assert [one["id"] for one in await admin.events(actor=actor, type="prompt.submit.v3")] == [stories[1][0]["id"]]
    # Times: since is inclusive, until is not.
    at = stories[1][0]["time"]
    since, before = await admin.events(since=at), await admin.events(until=at)
    assert stories[1][0]["id"] in {one["id"] for one in since}
    assert stories[1][0]["id"] not in {one["id"] for one in before}
    assert all(datetime.fromisoformat(one["time"]) < datetime.fromisoformat(at) for one in before)
    later = (datetime.fromisoformat(at) + timedelta(days=1)).isoformat()
    assert await admin.events(since=later) == []
    # Pages of one filter, put together, are the export; reading makes lines of its own, so read up to those there were.
    paged: list[Json] = []
    cursor = None
    while len(paged) < len(everything):
        page = await admin.get("/v1/events", limit=3, **({"cursor": cursor} if cursor else {}))
        assert len(page["events"]) <= 3
        paged += page["events"]
        cursor = page["next_cursor"]
    assert [line["event"] for line in paged][: len(everything)] == everything
    assert [line["sequence"] for line in paged] == list(range(1, len(paged) + 1))
    by_header = await admin.http.get(
        "/v1/events", params={"type": "generation.completed.v3"}, headers={"Accept": "application/x-ndjson"}
    )
    assert [json.loads(line)["event"] for line in by_header.text.splitlines()] == completed


async def test_reading_the_record_is_on_record(callers: Callers) -> None:
    tenant = await callers.tenant()
    admin, auditor = await callers.caller(tenant, "admin"), await callers.caller(tenant, "auditor", "eve")
    assert (await auditor.get("/v1/events", type="prompt.submit.v3", limit=1))["events"] == []
    await auditor.events(actor="operator")

    def by_eve(found: list[Json]) -> list[Json]:
        return [one for one in found if one["actor"].startswith("user:")]

    reads = by_eve(await eventually(lambda: admin.events(type="audit.read.v1"), lambda found: len(by_eve(found)) == 2))
    assert [(one["data"]["exported"], one["data"]["filters"]) for one in reads] == [
        (False, {"type": "prompt.submit.v3"}),
        (True, {"actor": "operator"}),
    ]


async def test_what_operators_did_is_on_record_without_secrets(callers: Callers) -> None:
    tenant = await callers.tenant()
    admin = await callers.caller(tenant, "admin")
    member = await callers.caller(tenant, "member", "ada")
    wanted = Counter({"tenant.provisioned.v1": 1, "key.issued.v2": 2, "user.invited.v2": 1})
    found = await eventually(
        admin.events, lambda found: Counter(one["type"] for one in found if one["actor"] == "operator") == wanted
    )
    text = json.dumps(found)
    for client in (admin, member):
        key = client.http.headers["authorization"].split()[1]
        assert key.rsplit("_", 1)[1] not in text


async def test_metrics_can_be_parsed_and_say_nothing_about_anybody(admin: Client) -> None:
    secret = "unmistakable"
    accepted = await admin.submit(secret)
    await admin.ended(accepted["generation_id"])
    response = await admin.http.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    requests = families["parley_http_requests"].samples
    posted = [one for one in requests if one.labels.get("route") == "/v1/prompts" and one.labels["method"] == "POST"]
    assert posted, requests
    for foreign in (secret, accepted["generation_id"], accepted["conversation_id"]):
        assert foreign not in response.text
    assert (await admin.get("/healthz")) == {"status": "ok"}
    assert (await admin.get("/readyz")) == {"status": "ready", "not_ready": {}}


async def test_the_record_equals_what_the_bus_still_holds(parley: Up, admin: Client) -> None:
    accepted = await admin.submit("x")
    await admin.ended(accepted["generation_id"])
    said = parley.parley("record", "compare")
    assert re.match(r"equal: [1-9]\d* messages of the bus, [1-9]\d* lines of the record", said), said


async def test_read_models_equal_what_the_bus_tells(parley: Up, admin: Client) -> None:
    accepted = await admin.submit("x")
    await admin.ended(accepted["generation_id"])
    said = parley.parley("rebuild", "all", "--check", "--from-bus").splitlines()
    for model, line in zip((one.name for one in PROJECTIONS), said, strict=True):
        assert re.fullmatch(rf"{model}: equals the bus \([1-9]\d* lines, \d+ rows, \d+ of them erased\)", line), line
    assert "rows" in parley.parley("rebuild", "messages", "--check", "--from-bus")
    refused = parley.parley("rebuild", "messages", "--from-bus", code=1)
    assert refused.startswith("parley: --from-bus needs --check: read models are rebuilt from the record alone")
    assert "parley record compare" in parley.parley("rebuild", "event_log", "--check", "--from-bus", code=1)
