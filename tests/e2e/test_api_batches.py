"""Batches over HTTP: a file in, its progress, and what came of its lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(240)

JSONL = {"Content-Type": "application/jsonl"}


def line(custom_id: str, **body: object) -> Json:
    request = {"messages": [{"role": "user", "content": "hello"}]} | body
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": request}


def jsonl(*lines: Json) -> str:
    return "".join(json.dumps(one) + "\n" for one in lines)


async def ended(client: Client, batch_id: str) -> Json:
    return await eventually(lambda: client.get(f"/v1/batches/{batch_id}"), lambda found: found["ended_at"])


async def lines_of(client: Client, url: str) -> list[Json]:
    response = await client.http.get(url)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/jsonl"
    return [json.loads(one) for one in response.text.splitlines()]


async def test_a_batch_from_its_file_to_its_results(admin: Client) -> None:
    metadata = {"run": "nightly", "où": "ça"}
    batch = await admin.submit_batch(
        [f"question {number}" for number in range(1, 31)], script={"tokens": ["Hi ", "there."]}, metadata=metadata
    )
    assert batch["total"] == 30
    # It is there at once, and in lists.
    assert (await admin.get(batch["url"]))["request_counts"]["total"] == 30
    found = await ended(admin, batch["id"])
    assert (found["status"], found["metadata"]) == ("completed", metadata)
    assert found["request_counts"] == {"total": 30, "completed": 30, "failed": 0, "running": 0}
    assert (await admin.get("/v1/batches"))["batches"] == [found]
    results = await lines_of(admin, batch["results_url"])
    assert [one["custom_id"] for one in results] == [f"line {number}" for number in range(1, 31)]
    body = results[0]["response"]["body"]
    assert (body["object"], body["model"], body["usage"]["completion_tokens"]) == ("chat.completion", "script", 2)
    assert body["choices"][0]["message"]["content"] == "Hi there."
    assert await lines_of(admin, batch["errors_url"]) == []
    # Its lines are generations like others, and in no list of conversations.
    assert (await admin.generation(results[0]["response"]["request_id"]))["content"] == "Hi there."
    assert (await admin.get("/v1/conversations"))["conversations"] == []
    record = [one["type"] for one in await admin.events()]
    assert record.count("prompt.submit.v3") == 30
    assert [record.count(f"batch.{what}.v1") for what in ("submitted", "lines_failed", "completed")] == [1, 0, 1]


async def test_lines_that_fail_are_told_of_apart(admin: Client) -> None:
    broken = {"script": json.dumps({"fail_after": 0, "fail_kind": "refused", "fail_reason": "scripted_fault"})}
    content = jsonl(line("good"), line("no model", model="none"), line("broken", metadata=broken))
    response = await admin.http.post("/v1/batches", content=content, headers=JSONL)
    assert response.status_code == 202, response.text
    batch = response.json()
    assert response.headers["location"] == batch["url"]
    found = await ended(admin, batch["id"])
    assert (found["request_counts"]["completed"], found["request_counts"]["failed"]) == (1, 2)
    errors = await lines_of(admin, batch["errors_url"])
    assert {one["custom_id"]: one["error"]["code"] for one in errors} == {
        "broken": "scripted_fault",
        "no model": "unknown_model",
    }


async def test_a_batch_is_cancelled_and_deleted(admin: Client) -> None:
    batch = await admin.submit_batch(["x"] * 40, script={"count": 400, "delay_s": 0.05})
    await eventually(lambda: admin.get(batch["url"]), lambda found: found["request_counts"]["running"])
    early = await admin.http.delete(batch["url"])
    assert (early.status_code, early.json()["type"]) == (409, "urn:parley:problem:batch-not-ended")
    assert (await admin.http.post(f"{batch['url']}/cancel")).status_code == 202
    await eventually(lambda: admin.get(batch["url"]), lambda found: found["status"] in ("cancelling", "cancelled"))
    found = await ended(admin, batch["id"])
    assert (found["status"], found["request_counts"]["failed"]) == ("cancelled", 40)
    assert (await admin.http.post(f"{batch['url']}/cancel")).status_code == 202
    assert (await admin.http.delete(batch["url"])).status_code == 204
    await eventually(lambda: admin.http.get(batch["url"]), lambda response: response.status_code == 404)
    assert (await admin.get("/v1/batches"))["batches"] == []


@pytest.mark.parametrize(
    ("content", "status", "type", "said"),
    [
        ("", 422, "unusable-file", "no line"),
        ("{}\n{", 422, "unusable-file", "line 2: is not JSON"),
        (jsonl(line("a"), line("a")), 422, "unusable-file", "that of line 1"),
    ],
)
async def test_an_unusable_file_is_refused_with_its_lines(
    admin: Client, content: str, status: int, type: str, said: str
) -> None:
    response = await admin.http.post("/v1/batches", content=content, headers=JSONL)
    assert response.status_code == status
    assert response.json()["type"].endswith(type)
    assert said in response.json()["detail"]
    assert (await admin.get("/v1/batches"))["batches"] == []


async def test_what_is_no_file_is_refused(admin: Client) -> None:
    as_json = await admin.http.post("/v1/batches", json={})
    assert as_json.status_code == 415
    for metadata in ("[]", "{", json.dumps({"a": 1}), json.dumps({"a": "x" * 513})):
        headers = JSONL | {"Batch-Metadata": metadata}
        response = await admin.http.post("/v1/batches", content=jsonl(line("a")), headers=headers)
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "header.batch-metadata"
    longer = await admin.http.post("/v1/batches?completion_window=48h", content=jsonl(line("a")), headers=JSONL)
    assert longer.status_code == 422


async def test_a_large_file_is_taken_where_a_large_prompt_is_not(admin: Client) -> None:
    large = jsonl(*(line(f"{number}", model="none", user="x" * 100_000) for number in range(20)))
    response = await admin.http.post("/v1/batches", content=large, headers=JSONL)
    assert (response.status_code, response.json()["total"]) == (202, 20)
    found = await ended(admin, response.json()["id"])
    assert found["request_counts"]["failed"] == 20
    refused = await admin.http.post("/v1/prompts", json={"input": "x" * 2_000_000})
    assert refused.status_code == 413
    one_line = await admin.http.post("/v1/batches", content=jsonl(line("a", user="x" * 2_000_000)), headers=JSONL)
    assert (one_line.status_code, one_line.json()["errors"][0]["field"]) == (422, "line 1")


async def test_a_member_sees_its_own(callers: Callers) -> None:
    tenant_id = await callers.tenant()
    ada, bob = [await callers.caller(tenant_id, "member", name) for name in ("ada", "bob")]
    admin = await callers.caller(tenant_id, "admin")
    batch = await ada.submit_batch(["x"])
    for url in (batch["url"], batch["results_url"], batch["errors_url"]):
        assert (await ada.http.get(url)).status_code == 200
        assert (await admin.http.get(url)).status_code == 200
        assert (await bob.http.get(url)).status_code == 404
    assert (await bob.get("/v1/batches"))["batches"] == []
    pages = [await ada.get("/v1/batches", limit=1)]
    await ada.submit_batch(["y"])
    pages.append(await ada.get("/v1/batches", limit=1))
    assert pages[0]["next_cursor"] is None
    (older,) = (await ada.get("/v1/batches", limit=1, cursor=pages[1]["next_cursor"]))["batches"]
    assert older["id"] == batch["id"]


async def test_the_command_line_submits_waits_and_fetches(parley: Up, admin: Client, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(jsonl(line("first"), line("second", model="none")))
    key = admin.http.headers["authorization"].removeprefix("Bearer ")

    def run(*arguments: str, code: int = 0) -> str:
        return parley.parley("batch", *arguments, code=code, PARLEY_URL=parley.url, PARLEY_API_KEY=key)

    batch = json.loads(run("submit", str(file), "--wait", "--metadata", "run=1"))
    assert (batch["status"], batch["metadata"]) == ("completed", {"run": "1"})
    assert json.loads(run("results", batch["id"]))["custom_id"] == "first"
    assert json.loads(run("results", batch["id"], "--errors"))["custom_id"] == "second"
    assert json.loads(run("list")) == batch
    run("delete", batch["id"])
    assert "Not found" in run("show", batch["id"], code=1)
    file.write_text("{")
    assert "line 1: is not JSON" in run("submit", str(file), code=1)
