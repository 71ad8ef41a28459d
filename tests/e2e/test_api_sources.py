"""Sources over HTTP, from a tenant's rules to what an answer says that it was given."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.client import Client, eventually
from tests.e2e.conftest import Callers
from tests.web import page, response, web

pytestmark = pytest.mark.timeout(120)

ECHO = {"echo": True}


async def allow(admin: Client, **rules: Any) -> None:
    changed = await admin.http.put("/v1/fetching", json={"enabled": True, "robots": False, **rules})
    assert changed.status_code == 200, changed.text


async def test_a_page_that_a_prompt_begins_with_is_read_and_named(admin: Client) -> None:
    async with web() as server:
        server.has["/tea"] = response(200, page("All about tea", "Tea is green, as everybody knows who drinks it."))
        text = f"{server.url('/tea')} Which colour has it?"
        plain = await admin.submit(text, script=ECHO)
        assert (await admin.ended(plain["generation_id"]))["content"] == text
        await allow(admin)
        accepted = await admin.submit(text, script=ECHO)
        found = await admin.ended(accepted["generation_id"])
        streamed = await admin.follow(accepted["generation_id"])
    assert "Tea is green" in found["content"]
    assert found["content"].endswith("Which colour has it?")
    (source,) = found["sources"]
    assert (source["number"], source["kind"], source["title"]) == (1, "url", "All about tea")
    assert source["url"] == server.url("/tea")
    assert streamed.detail["sources"] == found["sources"]
    told = await admin.messages(accepted["conversation_id"])
    assert [one["content"] for one in told if one["role"] == "user"] == ["Which colour has it?"]
    assert [one["sources"] for one in told] == [None, found["sources"]]
    conversation = await admin.get(f"/v1/conversations/{accepted['conversation_id']}")
    assert conversation["title"] == "Which colour has it?"
    record = await eventually(lambda: admin.events(type="generation.completed.v3"), lambda all: len(all) == 2)
    assert "green" not in str(record)


async def test_sites_are_named_by_their_marks_and_by_the_field(admin: Client) -> None:
    async with web() as server:
        server.has["/news"] = response(200, "It rains.", type="text/plain")
        body = {"name": "news", "domain": "news.example", "urls": [server.url("/news?key=secret")]}
        server.has["/news?key=secret"] = server.has["/news"]
        await allow(admin, enabled=False)
        added = await admin.http.post("/v1/sites", json=body)
        assert added.status_code == 201, added.text
        by_mark, by_field = ("|RAG|news.example|/RAG| Any news?", ()), ("Any news?", [{"kind": "site", "site": "News"}])
        for text, sources in (by_mark, by_field):
            accepted = await admin.submit(text, script=ECHO, sources=sources)
            found = await admin.ended(accepted["generation_id"])
            assert "It rains." in found["content"]
            assert [one["site"] for one in found["sources"]] == ["news"]
        assert len(server.asked) == 1, "a site is fetched as often as it says"
    events = await eventually(lambda: admin.events(type="site.added.v1"), bool)
    assert events[0]["data"]["urls"] == [server.url("/news")]
    changed = await admin.http.put(f"/v1/sites/{added.json()['id']}", json=body | {"every_s": 0})
    assert (changed.status_code, changed.json()["every_s"]) == (200, 0)
    assert (await admin.http.post("/v1/sites", json=body)).status_code == 409
    assert [one["name"] for one in (await admin.get("/v1/sites"))["sites"]] == ["news"]
    assert (await admin.http.delete(f"/v1/sites/{added.json()['id']}")).status_code == 204
    assert (await admin.get("/v1/sites"))["sites"] == []


@pytest.mark.parametrize(
    ("body", "type", "field"),
    [
        ({"input": "|RAG|gossip|/RAG| x"}, "unknown-site", "body.input"),
        ({"input": "x", "sources": [{"kind": "site", "site": "gossip"}]}, "unknown-site", "body.sources.0"),
        ({"input": "https://denied.example/ x"}, "source-refused", "body.input"),
        ({"input": "x", "sources": [{"kind": "url", "url": "ftp://a.example"}]}, "source-refused", "body.sources.0"),
        ({"input": "x", "sources": [{"kind": "book"}]}, "invalid-request", "body.sources.0"),
    ],
)
async def test_what_cannot_be_read_is_a_422_that_names_it(
    body: dict[str, Any], type: str, field: str, admin: Client
) -> None:
    await allow(admin, deny=["denied.example"])
    response = await admin.http.post("/v1/prompts", json=body)
    assert response.status_code == 422
    problem = response.json()
    assert problem["type"].endswith(f":{type}")
    assert [one["field"] for one in problem["errors"]] == [field]


@pytest.mark.parametrize(
    "body", [{"allow": ["https://a.example"]}, {"deny": ["*"]}, {"deny": ["A.example"]}, {"on": 1}]
)
async def test_rules_that_mean_nothing_are_refused(body: dict[str, Any], admin: Client) -> None:
    assert (await admin.http.put("/v1/fetching", json=body)).status_code == 422
    assert (await admin.get("/v1/fetching"))["enabled"] is False


async def test_members_use_sites_and_do_not_make_them(callers: Callers) -> None:
    member = await callers.caller(await callers.tenant(), "member")
    assert (await member.http.put("/v1/fetching", json={"enabled": True})).status_code == 403
    assert (await member.http.get("/v1/sites")).status_code == 403
