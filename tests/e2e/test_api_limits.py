"""Limits as admins set them and clients meet them."""

from __future__ import annotations

import json

import pytest

from backplane.ports.identifiers import new_id
from tests.e2e.client import Client, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

SLOW = {"count": 3, "delay_s": 1.0}


async def issued_key(admin: Client) -> str:
    """The id of its first key."""
    events = await eventually(lambda: admin.events(type="key.issued.v2"), lambda found: bool(found))
    subject: str = events[0]["subject"]
    return subject.removeprefix("key:")


async def test_a_limit_that_is_reached_says_which_and_until_when(admin: Client) -> None:
    me = await issued_key(admin)
    answer = await admin.http.put(f"/v1/limits/key/{me}", json={"requests_per_minute": 2, "tokens_per_minute": 5000})
    assert answer.status_code == 200, answer.text
    first = await eventually(
        lambda: admin.post_prompt("a"), lambda answer: "x-ratelimit-limit-requests" in answer.headers
    )
    assert (first.status_code, first.headers["x-ratelimit-limit-requests"]) == (202, "2")
    assert first.headers["x-ratelimit-limit-tokens"] == "5000"
    refused = await eventually(lambda: admin.post_prompt("a"), lambda answer: answer.status_code != 202)
    assert refused.status_code == 429
    problem = refused.json()
    assert problem["type"].endswith(":rate-limit-exceeded")
    assert (problem["dimension"], problem["subject"], problem["kind"], problem["limit"]) == (
        "key", me, "requests_per_minute", 2,
    )  # fmt: skip
    assert 0 < int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    large = await admin.post_prompt("a", parameters={"max_tokens": 6000})
    assert (large.status_code, large.json()["kind"]) == (422, "tokens_per_minute")
    assert "max_tokens" in large.json()["detail"]
    (shown,) = (await admin.get("/v1/limits"))["items"]
    assert (shown["dimension"], shown["subject"]) == ("key", me)
    assert shown["use"]["requests_per_minute"] == {"limit": 2, "used": 2, "reserved": 0}
    (event,) = await eventually(lambda: admin.events(type="subject.limits_set.v1"), lambda found: len(found) == 1)
    assert event["subject"] == f"key:{me}"
    assert (await admin.http.put(f"/v1/limits/key/{me}", json={})).status_code == 200
    assert (await admin.get("/v1/limits"))["items"] == []


async def test_a_limit_that_is_nearly_reached_is_told_of_once(admin: Client) -> None:
    limits = {"requests_per_minute": 100, "concurrent": 4, "warn_at_percent": 50}
    assert (await admin.http.put("/v1/limits/model/script", json=limits)).status_code == 200
    running = [await admin.submit("talk", script=SLOW) for _ in range(3)]
    (warned,) = await eventually(lambda: admin.events(type="limit.nearly_reached.v1"), lambda found: bool(found))
    told = warned["data"]
    assert (told["dimension"], told["whose"], told["limit"], told["used"], told["of"], told["percent"]) == (
        "model", "script", "concurrent", 2, 4, 50,
    )  # fmt: skip
    for one in running:
        await admin.ended(one["generation_id"])
    assert len(await admin.events(type="limit.nearly_reached.v1")) == 1


async def test_generations_at_a_time_free_their_place_when_they_end(admin: Client) -> None:
    assert (await admin.http.put("/v1/limits/model/script", json={"concurrent": 1})).status_code == 200
    first = await admin.submit("talk", script=SLOW)
    refused = await admin.post_prompt("a")
    assert (refused.status_code, refused.json()["kind"]) == (429, "concurrent")
    await admin.ended(first["generation_id"])
    await eventually(lambda: admin.post_prompt("a"), lambda answer: answer.status_code == 202)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"requests_per_minute": -1}, "body.requests_per_minute"),
        ({"usd_per_day": "-0.01"}, "body.usd_per_day"),
        ({"usd_per_month": "1e12"}, "body.usd_per_month"),
        ({"usd_per_month": "0.0000000001"}, "body.usd_per_month"),
        ({"warn_at_percent": 101}, "body.warn_at_percent"),
        ({"requests_per_hour": 1}, "body.requests_per_hour"),
    ],
)
async def test_a_limit_that_makes_no_sense_is_refused(admin: Client, body: dict[str, object], field: str) -> None:
    answer = await admin.http.put("/v1/limits/model/script", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_nobody_limits_what_is_another_tenants(admin: Client, callers: Callers) -> None:
    other = await callers.admin()
    theirs = await issued_key(other)
    for subject in (theirs, str(new_id()), "no-id"):
        answer = await admin.http.put(f"/v1/limits/key/{subject}", json={"concurrent": 0})
        assert answer.status_code == 404
    assert (await admin.http.put("/v1/limits/tenant/x", json={"concurrent": 9})).status_code == 422
    assert (await admin.http.put("/v1/limits/model/script", json={"concurrent": 0})).status_code == 200
    assert (await other.get("/v1/limits"))["items"] == []
    await other.submit("a")
    assert (await admin.post_prompt("a")).status_code == 422


async def test_operators_limit_tenants_at_the_command_line(parley: Up, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    client = await callers.caller(tenant_id, "admin")
    await client.submit("a")
    parley.parley("limits", "set", "--tenant", str(tenant_id), "--usd-per-month", "20.5", "--concurrent", "0")
    refused = await eventually(lambda: client.post_prompt("a"), lambda answer: answer.status_code != 202)
    assert (refused.status_code, refused.json()["dimension"]) == (422, "tenant")
    (line,) = parley.parley("limits", "list", "--tenant", str(tenant_id)).splitlines()
    assert json.loads(line)["use"]["usd_per_month"] == {"limit": "20.5", "used": "0", "reserved": "0"}
    assert "--concurrent" in parley.parley("limits", "set", "--tenant", str(tenant_id), "--concurrent", "-1", code=1)
    parley.parley("limits", "set", "--tenant", str(tenant_id))
    await eventually(lambda: client.post_prompt("a"), lambda answer: answer.status_code == 202)
