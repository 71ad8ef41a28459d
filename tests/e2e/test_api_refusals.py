"""Broken requests get a clear problem that names what is wrong, and whoever may ask at all is put on record for it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import ORIGIN, Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)

JSON = {"Content-Type": "application/json"}


def problem(response: httpx.Response, status: int, kind: str) -> Json:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told: Json = response.json()
    assert told["type"] == f"urn:parley:problem:{kind}"
    assert told["status"] == status
    assert told["title"]
    assert told["detail"]
    assert told["request_id"] == response.headers["x-request-id"]
    return told


async def post(client: Client, content: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
    return await client.http.post("/v1/prompts", content=content, headers={**JSON, **headers})


@pytest.mark.parametrize(
    ("content", "field", "says"),
    [
        (b'{"input": ', "body", "not JSON: Expecting value at character 10"),
        (b"[]", "body", "valid dictionary"),
        (b"", "body", "required"),
        (b"{}", "body", "give `input`, `messages`"),
        (b'{"input": ""}', "body.input", "at least 1"),
        (b'{"input": 5}', "body.input", "valid string"),
        (b'{"input": "a\\u0000b"}', "body.input", "U+0000"),
        (b'{"input": "a\\ud800b"}', "body.input", "surrogate"),
        (b'{"input": "a", "metadata": {"\\ud800": "b"}}', "body.metadata", "surrogate"),
        (b'{"input": "a", "temperature": 1}', "body.temperature", "not permitted"),
        (b'{"input": "a", "\\ud800": 1}', "body", "as a unicode string"),
        (b'{"input": "a", "parameters": {"temperature": 3}}', "body.parameters.temperature", "less than or equal to 2"),
        (b'{"input": "a", "parameters": {"top_p": NaN}}', "body.parameters.top_p", ""),
        (b'{"input": "a", "parameters": {"stop": ["x", 5]}}', "body.parameters.stop.1", "valid string"),
        (b'{"input": "a", "messages": [{"role": "user", "content": "b"}]}', "body", "not both"),
        (b'{"messages": [{"role": "assistant", "content": "b"}]}', "body", "must be a user's"),
        (b'{"messages": [{"role": "robot", "content": "b"}]}', "body.messages.0.role", "'user'"),
        (b'{"input": "a", "parent_message_id": "7"}', "body.parent_message_id", "valid UUID"),
    ],
)
async def test_a_bad_body_names_the_field(admin: Client, content: bytes, field: str, says: str) -> None:
    told = problem(await post(admin, content), 422, "invalid-request")
    (error,) = [one for one in told["errors"] if one["field"].startswith(field)]
    assert says in error["message"]
    assert says in told["detail"]


async def test_prompts_that_cannot_be_answered_are_refused_with_the_reason(admin: Client) -> None:
    unknown = problem(await admin.post_prompt("a", model="gpt-17"), 422, "unknown-model")
    assert unknown["errors"][0]["field"] == "body.model"
    assert "script" in unknown["detail"]
    half = problem(await post(admin, b'{"input": "a", "model": "\\ud800"}'), 422, "invalid-request")
    assert half["errors"][0]["field"] == "body.model"
    many = [{"role": "user", "content": "a"}] * 1001
    assert problem(await admin.post_prompt(messages=many), 422, "too-many-messages")["errors"][0]["field"]
    big = problem(await admin.post_prompt("a", metadata={"k": "v" * 20_000}), 422, "metadata-too-large")
    assert big["errors"][0]["field"] == "body.metadata"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_another_content_type_is_named_as_such(admin: Client, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await admin.http.post("/v1/prompts", content=b'{"input": "a"}', headers=headers)
    assert "application/json" in problem(response, 415, "unsupported-media-type")["detail"]


async def test_too_large_bodies_are_refused_whether_or_not_they_say_their_length(admin: Client) -> None:
    body = b'{"input": "' + b"x" * 1024 * 1024 + b'"}'
    declared = problem(await post(admin, body), 413, "too-large")

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 65536):
            yield body[begin : begin + 65536]

    undeclared = problem(await post(admin, pieces()), 413, "too-large")
    assert {**declared, "request_id": ""} == {**undeclared, "request_id": ""}
    assert "1048576" in declared["detail"]


async def test_json_nested_beyond_sense_is_no_fault_of_ours(admin: Client) -> None:
    problem(await post(admin, b'{"input": ' + b"[" * 200_000), 400, "malformed-request")


async def test_bytes_that_are_no_text_are_malformed(admin: Client) -> None:
    problem(await post(admin, b'{"input": "\xff\xfe"}'), 400, "malformed-request")


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_idempotency_keys_have_bounds(admin: Client, key: str) -> None:
    told = problem(await post(admin, b'{"input": "a"}', **{"Idempotency-Key": key}), 422, "invalid-request")
    assert told["errors"][0]["field"] == "header.idempotency-key"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/generations/7", "path.generation_id"),
        ("/v1/generations/7/stream", "path.generation_id"),
        ("/v1/conversations/7", "path.conversation_id"),
        ("/v1/conversations?limit=0", "query.limit"),
        ("/v1/conversations?cursor=x", "query.cursor"),
        ("/v1/usage?group_by=colour", "query.group_by"),
        ("/v1/usage?from=2026-01-01&to=2025-01-01", "query.from"),
        ("/v1/events?cursor=-1", "query.cursor"),
        ("/v1/events?correlation_id=7", "query.correlation_id"),
        ("/v1/events?type=%00", "query.type"),
    ],
)
async def test_a_bad_question_names_the_field(admin: Client, path: str, field: str) -> None:
    told = problem(await admin.http.get(path), 422, "invalid-request")
    assert [error["field"] for error in told["errors"]] == [field]


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1", "1-2-3", "²-1"])
async def test_a_bad_cursor_of_a_stream_is_named(admin: Client, cursor: str) -> None:
    accepted = await admin.submit("a")
    response = await admin.http.get(accepted["stream_url"], params={"after": cursor})
    assert problem(response, 422, "invalid-request")["errors"][0]["field"] == "query.after"


async def test_what_is_not_there_is_said_in_the_same_way_everywhere(admin: Client) -> None:
    problem(await admin.http.get("/nowhere"), 404, "not-found")
    problem(await admin.http.put("/v1/prompts", json={}), 405, "method-not-allowed")


async def test_a_request_id_of_the_caller_is_kept_where_it_is_one(admin: Client) -> None:
    kept = await admin.http.get("/nowhere", headers={"X-Request-ID": "order-66.a_b"})
    assert problem(kept, 404, "not-found")["request_id"] == "order-66.a_b"
    replaced = await admin.http.get("/nowhere", headers={"X-Request-ID": "a b<script>"})
    assert "script" not in problem(replaced, 404, "not-found")["request_id"]


@pytest.mark.parametrize(
    "authorization",
    ["", "Basic eDp5", "Bearer", "Bearer x", f"Bearer parley_{'0' * 16}_{'0' * 64}", "Bearer parley_{}_" + "0" * 64],
)
async def test_without_a_valid_key_nothing_is_told(parley: Up, authorization: str) -> None:
    prefix = parley.admin_key.split("_")[1]
    async with httpx.AsyncClient(base_url=parley.url, trust_env=False) as http:
        headers = {"Authorization": authorization.replace("{}", prefix)} if authorization else {}
        for request in (http.get("/v1/conversations", headers=headers), http.post("/v1/prompts", headers=headers)):
            response = await request
            problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
            assert parley.admin_key not in response.text


async def test_refusals_are_on_record_summed_and_nothing_of_what_was_written_is(callers: Callers) -> None:
    tenant = await callers.tenant()
    admin = await callers.caller(tenant, "admin")
    member = await callers.caller(tenant, "member", "ada")
    auditor = await callers.caller(tenant, "auditor")
    secret = "the-secret-of-the-prompt"
    refused = [member.post_prompt(secret, model="gpt-17") for _ in range(30)]
    refused += [member.post_prompt(secret, parameters={"temperature": 3}) for _ in range(10)]
    refused += [auditor.post_prompt(secret) for _ in range(5)]
    responses = await asyncio.gather(*refused)
    assert Counter(response.status_code for response in responses) == {422: 40, 403: 5}

    def sums(found: list[Json]) -> Counter[str]:
        counted: Counter[str] = Counter()
        for one in found:
            counted[one["data"]["reason"]] += one["data"]["count"]
        return counted

    wanted = {"unknown-model": 30, "invalid-request": 10, "forbidden": 5}
    found = await eventually(
        lambda: admin.events(type="prompt.rejected.v1"), lambda found: sums(found).total() >= sum(wanted.values())
    )
    assert sums(found) == wanted
    assert len(found) < 15
    assert all(one["subject"].startswith("key:") for one in found)
    assert secret not in json.dumps(await admin.events())
    # Who is nobody leaves no line.
    async with httpx.AsyncClient(base_url=admin.http.base_url, trust_env=False) as nobody:
        problem(await nobody.post("/v1/prompts", json={"input": "a"}), 401, "unauthorized")


async def test_browsers_of_allowed_origins_may_call_and_others_may_not(admin: Client) -> None:
    asking = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key,x-stainless-lang",
    }
    allowed = await admin.http.options("/v1/prompts", headers={"Origin": ORIGIN, **asking})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    document = (await admin.http.get("/openapi.json")).json()
    for method in {method.upper() for item in document["paths"].values() for method in item}:
        headers = {"Origin": ORIGIN, **asking, "Access-Control-Request-Method": method}
        assert (await admin.http.options("/v1/prompts", headers=headers)).status_code == 200, method
    refused = await admin.http.options("/v1/prompts", headers={"Origin": "https://evil.example.com", **asking})
    assert "access-control-allow-origin" not in refused.headers
    response = await admin.http.post("/v1/prompts", json={"input": "a"}, headers={"Origin": ORIGIN})
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert response.headers["access-control-expose-headers"] == "*"
    # Also what goes wrong can be read by the page that caused it.
    wrong = await admin.http.post("/v1/prompts", json={}, headers={"Origin": ORIGIN})
    assert wrong.headers["access-control-allow-origin"] == ORIGIN
