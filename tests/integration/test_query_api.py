"""The query API's answers, over HTTP, from real read models."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest

from backplane.ports.identifiers import new_id
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.security.content import DataKeys
from backplane.security.sealing import MasterKey
from event_schemas.chat import AnswerContent, ChatMessage, ImagePart, TextPart, ToolCall
from event_schemas.codec import decode
from event_schemas.control_plane import AuditRead, TitleContent
from event_schemas.generation import PromptContent
from event_schemas.logprobs import TokenLogprob
from event_schemas.payload import Content
from event_schemas.topics import CONTROL, EVENTS, commands
from tests.conftest import TestDatabase, ValkeyServer
from tests.data_keys import DATA_KEYS
from tests.integration.query_world import NOW, Caller, World, generation, serving

HELLO: TokenLogprob = {
    "token": "Hello",
    "logprob": -0.25,
    "top_logprobs": [{"token": "\ufffd", "logprob": -3.5, "bytes": [195]}],
}
THERE: TokenLogprob = {"token": " the", "logprob": -1e-7, "top_logprobs": []}


@pytest.fixture
async def world(database: TestDatabase, valkey_server: ValkeyServer) -> AsyncIterator[World]:
    async with serving(database, valkey_server.url) as made:
        yield made


@pytest.fixture
def tenant() -> UUID:
    return new_id()


async def conversation(world: World, owner: Caller, title: str | None = "Title", **columns: Any) -> UUID:
    row: dict[str, Any] = {
        "id": new_id(),
        "tenant_id": owner.tenant_id,
        "user_id": owner.user_id,
        "renamed": False,
        "created_at": NOW,
        "updated_at": NOW,
        "deleted": False,
    }
    row |= columns
    if title is not None:
        row["title"] = await world.sealed(owner.tenant_id, row["id"], TitleContent(title=title))
    await world.insert("conversations", **row)
    made: UUID = row["id"]
    return made


async def test_a_generation_with_all_its_facts(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    generation_id = await generation(
        world,
        member,
        status="completed",
        attempt=2,
        finish_reason="stop",
        input_tokens=5,
        output_tokens=2,
        cached_input_tokens=4,
        reasoning_tokens=1,
        cost_usd=Decimal("5E-9"),
        served_pool="p",
        served_model="real",
        usage_source="provider",
        parameters=orjson.dumps({"temperature": 0.5}).decode(),
        first_token_ms=10,
        duration_ms=20,
        started_at=NOW,
        ended_at=NOW,
        prompt=PromptContent(messages=(), metadata={"ticket": "1"}),
        answer=AnswerContent(
            text="Hello there",
            reasoning="hm",
            tool_calls=(ToolCall(id="c1", name="look", arguments="{}"),),
            delta_lengths=((-1, 2), 5, 6, (0, 2)),
            logprobs=([], [HELLO], [THERE, THERE], []),
        ),
    )
    response = await member.get(f"/v1/generations/{generation_id}")
    assert response.status_code == 200
    answer = response.json()
    assert answer["usage"] == {
        "input_tokens": 5,
        "output_tokens": 2,
        "source": "provider",
        "cached_input_tokens": 4,
        "reasoning_tokens": 1,
        "cost_usd": "0.000000005",
    }
    assert answer["served"] == {"pool": "p", "model": "real"}
    assert answer["tool_calls"] == [{"id": "c1", "name": "look", "arguments": "{}"}]
    assert answer["reasoning"] == "hm"
    assert answer["logprobs"] == [HELLO, THERE, THERE]
    assert answer["parameters"] == {"temperature": 0.5, "stop": []}
    assert answer["metadata"] == {"ticket": "1"}
    assert answer["erased"] is False
    assert answer["message_id"] == answer["id"] == str(generation_id)
    assert answer["stream_url"] == f"/v1/generations/{generation_id}/stream"
    chosen = {name: answer[name] for name in ("status", "attempt", "content", "finish_reason", "reason")}
    assert chosen == {
        "status": "completed",
        "attempt": 2,
        "content": "Hello there",
        "finish_reason": "stop",
        "reason": None,
    }


async def test_who_sees_what(world: World, tenant: UUID) -> None:
    owner = await world.caller(tenant, "member")
    other_user = await world.caller(tenant, "member")
    machine = await world.caller(tenant, "member", user=False)
    other_machine = await world.caller(tenant, "member", user=False)
    admin = await world.caller(tenant, "admin")
    auditor = await world.caller(tenant, "auditor")
    stranger = await world.caller(new_id(), "admin")

    for whose, sees in ((owner, {owner, admin}), (machine, {machine, admin})):
        generation_id = await generation(world, whose)
        for caller in (owner, other_user, machine, other_machine, admin, stranger):
            for path in (f"/v1/generations/{generation_id}", f"/v1/generations/{generation_id}/stream"):
                if caller in sees and path.endswith("stream"):
                    continue
                response = await caller.get(path)
                assert response.status_code == (200 if caller in sees else 404), path
        refused = await auditor.get(f"/v1/generations/{generation_id}")
        assert refused.status_code == 403

    conversation_id = await conversation(world, owner)
    for caller in (owner, other_user, machine, admin, stranger):
        visible = caller in (owner, admin)
        assert (await caller.get(f"/v1/conversations/{conversation_id}")).status_code == (200 if visible else 404)
        listed = (await caller.get("/v1/conversations")).json()["conversations"]
        assert [one["id"] for one in listed] == ([str(conversation_id)] if visible else [])

    await world.insert(
        "usage",
        generation_id=new_id(),
        attempt=1,
        tenant_id=tenant,
        user_id=owner.user_id,
        key_id=owner.key_id,
        model="m",
        input_tokens=1,
        output_tokens=2,
        source="provider",
        at=NOW,
    )
    for caller in (owner, other_user, machine, admin, stranger):
        report = await caller.get("/v1/usage", **{"from": "2026-03-01", "to": "2026-03-02"})
        assert len(report.json()["groups"]) == (1 if caller in (owner, admin) else 0)
    for path in ("/v1/conversations", "/v1/usage"):
        assert (await auditor.get(path)).status_code == 403
    for caller, status in ((owner, 403), (auditor, 200), (admin, 200)):
        assert (await caller.get("/v1/events")).status_code == status


async def test_a_foreign_id_looks_exactly_like_an_unknown_one(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    stranger = await world.caller(new_id(), "admin")
    foreign = await stranger.get(f"/v1/generations/{await generation(world, member)}")
    unknown = await stranger.get(f"/v1/generations/{new_id()}")
    assert foreign.headers["content-type"] == "application/problem+json"
    assert {**foreign.json(), "request_id": ""} == {**unknown.json(), "request_id": ""}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/generations/not-an-id", "path.generation_id"),
        ("/v1/generations/01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11/stream?after=nonsense", "query.after"),
        ("/v1/conversations/not-an-id", "path.conversation_id"),
        ("/v1/conversations?cursor=nonsense!", "query.cursor"),
        ("/v1/conversations?cursor=bm9uc2Vuc2U", "query.cursor"),
        ("/v1/conversations?limit=0", "query.limit"),
        ("/v1/conversations?search=a%00b", "query.search"),
        ("/v1/usage?group_by=planet", "query.group_by"),
        ("/v1/usage?from=yesterday", "query.from"),
        ("/v1/usage?from=2026-03-02&to=2026-03-01", "query.from"),
        ("/v1/usage?to=0001-01-02", "query.to"),
        ("/v1/events?cursor=-1", "query.cursor"),
        ("/v1/events?cursor=99999999999999999999", "query.cursor"),
        ("/v1/events?correlation_id=1", "query.correlation_id"),
        ("/v1/events?type=%00", "query.type"),
        ("/v1/events?since=now", "query.since"),
    ],
)
async def test_bad_input_names_the_field(world: World, tenant: UUID, path: str, field: str) -> None:
    response = await (await world.caller(tenant, "admin")).get(path)
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_bad_last_event_id_is_named(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    response = await member.http.get(f"/v1/generations/{new_id()}/stream", headers={"Last-Event-ID": "1-x"})
    assert [error["field"] for error in response.json()["errors"]] == ["header.last-event-id"]


async def test_a_read_right_after_the_write_waits_for_the_projections(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    generation_id = new_id()
    await world.bus.publish(commands("local"), b"the command")
    reading = asyncio.create_task(member.get(f"/v1/generations/{generation_id}"))
    following = asyncio.create_task(member.get(f"/v1/generations/{generation_id}/stream"))
    await asyncio.wait({reading, following}, timeout=0.1)
    assert not reading.done()
    await generation(world, member, id=generation_id, status="cancelled")
    await world.passed(commands("local"))
    assert (await reading).status_code == 200
    assert "event: cancelled" in (await following).text


async def test_once_the_projections_have_passed_a_miss_is_a_404(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    for topic in (commands("local"), CONTROL, EVENTS):
        await world.bus.publish(topic, b"")
        await world.passed(topic)
    for path in ("generations", "conversations"):
        assert (await member.get(f"/v1/{path}/{new_id()}")).status_code == 404


async def test_projections_that_lag_are_a_503(database: TestDatabase, valkey_server: ValkeyServer) -> None:
    async with serving(database, valkey_server.url, read_your_writes_s=0.05) as world:
        member = await world.caller(new_id(), "member")
        await world.bus.publish(EVENTS, b"")
        await world.passed(EVENTS)
        await world.bus.publish(EVENTS, b"")
        for path in ("generations", "conversations"):
            response = await member.get(f"/v1/{path}/{new_id()}")
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) > 0
            assert response.json()["service"] == "projections"
        world.bus.away = True
        response = await member.get(f"/v1/generations/{new_id()}")
        assert (response.status_code, response.json()["service"]) == (503, "bus")


async def test_conversations_page_newest_first_and_by_title(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    ids = []
    for age in range(25):
        title = None if age == 3 else f"About 100% of_{'cats' if age % 2 else 'DOGS'} {age}"
        # Several share one moment, so that only the id tells them apart.
        ids.append(await conversation(world, member, title=title, updated_at=NOW - timedelta(seconds=age // 5)))
    await conversation(world, member, title="gone", deleted=True)
    in_order = [str(one) for one in sorted(ids, key=lambda one: (-(ids.index(one) // 5), one), reverse=True)]

    seen: list[str] = []
    cursor: dict[str, str] = {}
    pages = 0
    while True:
        page = (await member.get("/v1/conversations", limit=7, **cursor)).json()
        seen += [one["id"] for one in page["conversations"]]
        pages += 1
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == in_order
    assert pages == 4

    found = (await member.get("/v1/conversations", search="dogs", limit=100)).json()["conversations"]
    assert len(found) == 13
    assert len((await member.get("/v1/conversations", search="100% OF_c")).json()["conversations"]) == 11
    assert (await member.get("/v1/conversations", search="100_")).json()["conversations"] == []


async def message(world: World, owner: Caller, conversation_id: UUID, **columns: Any) -> UUID:
    """A row of a message, as the projections write it; contents are sealed."""
    for name, value in columns.items():
        if isinstance(value, Content):
            columns[name] = await world.sealed(owner.tenant_id, conversation_id, value)
    row: dict[str, Any] = {
        "id": new_id(),
        "tenant_id": owner.tenant_id,
        "conversation_id": conversation_id,
        "role": "assistant",
        "status": "completed",
        "attempt": 1,
        "ordinal": 1,
        "created_at": NOW,
        "erased": False,
    }
    row |= columns
    await world.insert("messages", **{"generation_id": row["id"], **row})
    made: UUID = row["id"]
    return made


async def turn(world: World, owner: Caller, conversation_id: UUID, prompt: PromptContent, **columns: Any) -> list[UUID]:
    """The messages of a prompt and its answer."""
    ids = [new_id() for _ in prompt.messages]
    for ordinal, (message_id, said) in enumerate(zip(ids, prompt.messages, strict=True)):
        facts = {"role": said.role, "status": "complete", "ordinal": ordinal}
        generation_id = columns["id"]
        await message(world, owner, conversation_id, id=message_id, generation_id=generation_id, **facts)
    return [*ids, await message(world, owner, conversation_id, prompt=prompt, ordinal=len(ids), **columns)]


async def test_a_conversation_is_a_tree_of_messages(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    conversation_id = await conversation(world, member)
    asked = ChatMessage(role="assistant", content="", tool_calls=(ToolCall(id="c1", name="look", arguments="{}"),))
    prompt = PromptContent(
        messages=(
            ChatMessage(role="user", content=(TextPart(text="Why? "), ImagePart(url="https://example.com/a.png"))),
            asked,
            ChatMessage(role="tool", content="A cat", tool_call_id="c1"),
        )
    )
    said = AnswerContent.of(["Because.", {"reasoning": "hm"}])
    question, call, result, answer = await turn(
        world, member, conversation_id, prompt, id=new_id(), answer=said, deltas=2, model="m"
    )
    later = {"created_at": NOW + timedelta(seconds=1), "prompt": PromptContent(messages=())}
    again = await message(world, member, conversation_id, parent_message_id=result, status="running", **later)
    body = (await member.get(f"/v1/conversations/{conversation_id}")).json()
    assert (body["title"], body["erased"]) == ("Title", False)
    assert [
        (one["id"], one["role"], one["content"], one["status"], one["model"], one["reasoning"], one["erased"])
        for one in body["messages"]
    ] == [
        (
            *(str(question), "user"),
            [
                {"type": "text", "text": "Why? "},
                {"type": "image", "url": "https://example.com/a.png", "detail": None},
            ],
            *("complete", None, None, False),
        ),
        (str(call), "assistant", "", "complete", None, None, False),
        (str(result), "tool", "A cat", "complete", None, None, False),
        (str(answer), "assistant", "Because.", "completed", "m", "hm", False),
        (str(again), "assistant", None, "running", None, None, False),
    ]
    assert body["messages"][1]["tool_calls"] == [{"id": "c1", "name": "look", "arguments": "{}"}]
    assert [one["tool_call_id"] for one in body["messages"]] == [None, None, "c1", None, None]
    assert body["messages"][4]["parent_message_id"] == str(result)


ANSWERED: dict[str, Any] = {
    "status": "completed",
    "attempt": 1,
    "finish_reason": "stop",
    "input_tokens": 1,
    "output_tokens": 2,
}
SECRET = PromptContent(messages=(ChatMessage(role="user", content="CANARY"),), metadata={"ticket": "CANARY"})


async def test_what_was_erased_is_shown_as_erased_and_its_facts_stay(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    conversation_id = await conversation(world, member, "CANARY")
    of_it: dict[str, Any] = {"conversation_id": conversation_id, "usage_source": "provider", **ANSWERED}
    generation_id = await generation(world, member, prompt=SECRET, answer=AnswerContent.of(["CANARY"]), **of_it)
    question = {"generation_id": generation_id, "role": "user", "status": "complete", "ordinal": 0}
    await message(world, member, conversation_id, **question)
    paths = (f"/v1/generations/{generation_id}", f"/v1/conversations/{conversation_id}", "/v1/conversations")
    for path in paths:
        assert "CANARY" in (await member.get(path)).text
    await world.destroy_key(conversation_id)
    for erased_in_rows in (False, True):
        if erased_in_rows:
            await world.owner.execute("UPDATE read_models.conversations SET erased = true, title = NULL")
            await world.owner.execute("UPDATE read_models.messages SET erased = true, prompt = NULL, answer = NULL")
        one, whole, page = [(await member.get(path)).json() for path in paths]
        assert "CANARY" not in repr((one, whole, page))
        assert (one["erased"], one["content"], one["metadata"]) == (True, None, None)
        assert (one["status"], one["usage"]["output_tokens"]) == ("completed", 2)
        assert (whole["erased"], whole["title"]) == (True, None)
        assert [(each["role"], each["erased"], each["content"]) for each in whole["messages"]] == [
            ("user", True, None),
            ("assistant", True, None),
        ]
        assert [(each["title"], each["erased"]) for each in page["conversations"]] == [(None, True)]
    assert (await member.get("/v1/conversations", search="canary")).json()["conversations"] == []


async def test_what_is_written_after_it_was_erased_is_shown(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    conversation_id = await conversation(world, member)
    of_it: dict[str, Any] = {"conversation_id": conversation_id, **ANSWERED}
    before = await generation(world, member, prompt=SECRET, answer=AnswerContent.of(["before"]), **of_it)
    await world.destroy_key(conversation_id)
    after = await generation(world, member, answer=AnswerContent.of(["after"]), **of_it)
    whole = (await member.get(f"/v1/conversations/{conversation_id}")).json()
    assert (whole["title"], whole["erased"]) == (None, True)
    shown = {(each["id"], each["content"], each["erased"]) for each in whole["messages"]}
    assert shown == {(str(before), None, True), (str(after), "after", False)}
    for generation_id, content in ((before, None), (after, "after")):
        assert (await member.get(f"/v1/generations/{generation_id}")).json()["content"] == content


async def test_where_no_content_is_kept_it_says_so(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    conversation_id = await conversation(world, member)
    generation_id = await generation(world, member, conversation_id=conversation_id, erased=True, deltas=3, **ANSWERED)
    one = (await member.get(f"/v1/generations/{generation_id}")).json()
    assert (one["erased"], one["content"]) == (True, None)
    whole = (await member.get(f"/v1/conversations/{conversation_id}")).json()
    assert (whole["erased"], [each["erased"] for each in whole["messages"]]) == (False, [True])


async def test_where_nothing_was_written_the_answer_is_empty_and_not_erased(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    generation_id = await generation(world, member, status="cancelled", attempt=0, deltas=0)
    one = (await member.get(f"/v1/generations/{generation_id}")).json()
    assert (one["erased"], one["content"]) == (False, "")


async def test_stop_strings_are_shown_where_they_were_given(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    parameters = orjson.dumps({"temperature": 0.5}).decode()
    prompt = PromptContent(messages=(), stop=("END",))
    generation_id = await generation(world, member, parameters=parameters, prompt=prompt)
    answer = (await member.get(f"/v1/generations/{generation_id}")).json()
    assert answer["parameters"] == {"temperature": 0.5, "stop": ["END"]}


async def test_a_row_that_cannot_be_read_hides_no_other_and_the_log_names_it(
    world: World, tenant: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    member = await world.caller(tenant, "member")
    conversation_id = await conversation(world, member)
    changed = orjson.loads(await world.sealed(tenant, conversation_id, AnswerContent.of(["CANARY"])))
    changed["sealed"] = changed["sealed"][:-8] + ("A" * 8 if changed["sealed"][-8:] != "A" * 8 else "B" * 8)
    broken = await generation(world, member, conversation_id=conversation_id, prompt=SECRET, **ANSWERED)
    await world.owner.execute("UPDATE read_models.messages SET answer = $1", orjson.dumps(changed).decode())
    fine = await generation(
        world, member, conversation_id=conversation_id, answer=AnswerContent.of(["fine"]), **ANSWERED
    )
    whole = (await member.get(f"/v1/conversations/{conversation_id}")).json()
    assert {(each["id"], each["content"], each["erased"]) for each in whole["messages"]} == {
        (str(broken), None, False),
        (str(fine), "fine", False),
    }
    (line,) = [record for record in caplog.records if vars(record).get("action") == "content_unreadable"]
    assert line.levelname == "ERROR"
    assert vars(line)["subject"] == f"message:{broken}"
    assert "was changed" in vars(line)["cause"]
    assert "CANARY" not in repr(vars(line))

    one = (await member.get(f"/v1/generations/{broken}")).json()
    assert (one["content"], one["erased"], one["metadata"]) == (None, False, {"ticket": "CANARY"})
    followed = await member.get(f"/v1/generations/{broken}/stream")
    assert (followed.status_code, followed.json()["type"]) == (500, "urn:parley:problem:unreadable")


async def test_another_master_key_hides_what_was_written_and_nothing_else(
    world: World, tenant: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    member = await world.caller(tenant, "member")
    readable, other = await conversation(world, member), new_id()
    _, wrapped = await DataKeys(MasterKey("77" * 32)).make(tenant, other)
    await conversation(world, member, None, id=other)
    await world.owner.execute(
        "INSERT INTO control.data_keys (tenant_id, conversation_id, wrapped) VALUES ($1, $2, $3)",
        *(tenant, other, wrapped),
    )
    await world.owner.execute(
        "UPDATE read_models.conversations SET title = (SELECT title FROM read_models.conversations WHERE id = $1)",
        readable,
    )
    page = (await member.get("/v1/conversations")).json()["conversations"]
    assert {(each["id"], each["title"], each["erased"]) for each in page} == {
        (str(readable), "Title", False),
        (str(other), None, False),
    }
    (line,) = [record for record in caplog.records if vars(record).get("action") == "content_unreadable"]
    assert vars(line)["subject"] == f"conversation:{other}"
    assert "set the former one again" in vars(line)["cause"]


async def test_key_management_that_does_not_answer_is_a_503(world: World, tenant: UUID) -> None:
    class Away:
        async def wrap(self, key: bytes, belongs_to: str) -> bytes:
            raise WrappingUnavailable("away by the test")

        async def unwrap(self, wrapped: bytes, belongs_to: str) -> bytes:
            raise WrappingUnavailable("away by the test")

    member = await world.caller(tenant, "member")
    conversation_id = await conversation(world, member)
    generation_id = await generation(world, member, conversation_id=conversation_id, status="running", attempt=1)
    world.app.state.query = replace(world.ports, data_keys=DataKeys(Away()))
    for path in (
        f"generations/{generation_id}",
        f"generations/{generation_id}/stream",
        f"conversations/{conversation_id}",
        "conversations",
        "conversations?search=t",
    ):
        response = await member.get(f"/v1/{path}")
        assert (response.status_code, response.json().get("service")) == (503, "holder of the master key"), path


async def test_titles_are_searched_however_many_there_are(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    rows = []
    for age in range(1000):
        conversation_id = new_id()
        key, wrapped = await DATA_KEYS.make(tenant, conversation_id)
        title = key.seal(TitleContent(title=f"{'Straße' if age % 100 == 99 else 'Weg'} {age}")).model_dump_json()
        rows.append((conversation_id, NOW - timedelta(seconds=age), title, wrapped))
    await world.owner.executemany(
        "INSERT INTO read_models.conversations"
        " (id, tenant_id, user_id, renamed, created_at, updated_at, deleted, title)"
        " VALUES ($1, $2, $3, false, $4, $4, false, $5)",
        [(row[0], tenant, member.user_id, row[1], row[2]) for row in rows],
    )
    await world.owner.executemany(
        "INSERT INTO control.data_keys (tenant_id, conversation_id, wrapped) VALUES ($1, $2, $3)",
        [(tenant, row[0], row[3]) for row in rows],
    )
    pages: list[list[str]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await member.get("/v1/conversations", search="STRASSE", limit=4, **cursor)).json()
        pages.append([each["title"] for each in page["conversations"]])
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert pages == [
        [f"Straße {age}" for age in ages] for ages in ((99, 199, 299, 399), (499, 599, 699, 799), (899, 999))
    ]
    assert (await member.get("/v1/conversations", search="Gasse")).json() == {"conversations": [], "next_cursor": None}


async def test_a_deleted_conversation_takes_its_generations_along(world: World, tenant: UUID) -> None:
    member = await world.caller(tenant, "member")
    conversation_id = await conversation(world, member)
    generation_id = await generation(world, member, conversation_id=conversation_id)
    assert (await member.get(f"/v1/generations/{generation_id}")).status_code == 200
    await world.owner.execute("UPDATE read_models.conversations SET deleted = true WHERE id = $1", conversation_id)
    for path in (
        f"generations/{generation_id}",
        f"generations/{generation_id}/stream",
        f"conversations/{conversation_id}",
    ):
        assert (await member.get(f"/v1/{path}")).status_code == 404


async def test_usage_is_summed_by_what_was_asked(world: World, tenant: UUID) -> None:
    admin, member = await world.caller(tenant, "admin"), await world.caller(tenant, "member")
    lost = new_id()
    for generation_id, attempt, who, model, source, day in (
        (lost, 1, member, "small", "estimated", 1),
        (lost, 2, member, "small", "provider", 1),
        (new_id(), 1, admin, "large", "provider", 2),
        (new_id(), 1, admin, "large", "provider", 9),
    ):
        await world.insert(
            "usage",
            generation_id=generation_id,
            attempt=attempt,
            tenant_id=tenant,
            user_id=who.user_id,
            key_id=who.key_id,
            model=model,
            input_tokens=10,
            output_tokens=2_000_000_000,
            source=source,
            at=NOW.replace(day=day),
        )

    async def report(**parameters: str) -> list[tuple[str, int, int, int, int]]:
        span = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-09T12:00:00", **parameters}
        body = (await admin.get("/v1/usage", **span)).json()
        fields = ("group", "generations", "attempts", "estimated_attempts", "output_tokens")
        return [tuple(one[field] for field in fields) for one in body["groups"]]

    assert await report() == [("2026-03-01", 1, 2, 1, 4_000_000_000), ("2026-03-02", 1, 1, 0, 2_000_000_000)]
    assert await report(group_by="model") == [("large", 1, 1, 0, 2_000_000_000), ("small", 1, 2, 1, 4_000_000_000)]
    for group_by, whose in (("user", "user_id"), ("key", "key_id")):
        groups = {one[0]: one[2] for one in await report(group_by=group_by)}
        assert groups == {str(getattr(admin, whose)): 1, str(getattr(member, whose)): 2}


async def test_a_request_for_embeddings_is_no_generation(world: World, tenant: UUID) -> None:
    admin = await world.caller(tenant, "admin")
    await used(world, admin)
    await used(world, admin, model="minilm", inputs=3)
    groups = (await admin.get("/v1/usage", **DAY, group_by="model")).json()["groups"]
    counted = {one["group"]: (one["generations"], one["embeddings"], one["attempts"]) for one in groups}
    assert counted == {"m": (1, 0, 1), "minilm": (0, 1, 1)}
    lines = csv.DictReader(io.StringIO((await admin.get("/v1/usage/attempts", **DAY)).text))
    assert [(line["model"], line["inputs"]) for line in lines] == [("m", ""), ("minilm", "3")]


async def used(world: World, who: Caller, **columns: Any) -> UUID:
    """An attempt of ``who`` in the usage; the row is as given, else one of the model `m`."""
    row: dict[str, Any] = {
        "generation_id": new_id(),
        "attempt": 1,
        "tenant_id": who.tenant_id,
        "user_id": who.user_id,
        "key_id": who.key_id,
        "model": "m",
        "input_tokens": 10,
        "output_tokens": 5,
        "source": "provider",
        "at": NOW,
    }
    await world.insert("usage", **row | columns)
    made: UUID = (row | columns)["generation_id"]
    return made


DAY = {"from": "2026-03-01", "to": "2026-03-02"}


async def test_usage_tells_who_paid_and_is_filtered(world: World, tenant: UUID) -> None:
    admin, member = await world.caller(tenant, "admin"), await world.caller(tenant, "member")
    await used(world, admin, paid_by="tenant", cost_usd=Decimal("0.25"), model="large")
    await used(world, member, paid_by="platform", cost_usd=Decimal("0.0000001"))
    await used(world, member, paid_by="platform", cost_usd=Decimal("0.5"))
    await used(world, member)

    async def report(caller: Caller = admin, **parameters: str) -> dict[str | None, tuple[int, str | None]]:
        body = (await caller.get("/v1/usage", **DAY, group_by="paid_by", **parameters)).json()
        return {one["group"]: (one["attempts"], one["cost_usd"]) for one in body["groups"]}

    assert await report() == {"platform": (2, "0.5000001"), "tenant": (1, "0.25"), None: (1, None)}
    assert await report(model="large") == {"tenant": (1, "0.25")}
    assert await report(user_id=str(member.user_id)) == {"platform": (2, "0.5000001"), None: (1, None)}
    assert await report(key_id=str(admin.key_id)) == {"tenant": (1, "0.25")}
    assert await report(key_id=str(admin.key_id), model="m") == {}
    # A filter shows nobody more than they may see.
    assert await report(member, user_id=str(admin.user_id)) == {}
    assert await report(await world.caller(new_id(), "admin"), key_id=str(admin.key_id)) == {}


async def test_usage_is_exported_for_spreadsheets_without_formulas(world: World, tenant: UUID) -> None:
    admin = await world.caller(tenant, "admin")
    names = ['=HYPERLINK("http://evil")', "+1", "-1", "@SUM(A1)", "\tx", 'with "quotes", and\nlines', "plain"]
    for name in names:
        await used(world, admin, model=name, paid_by="platform", cost_usd=Decimal("0.0000000001"))
    for response in (
        await admin.get("/v1/usage", **DAY, group_by="model", format="csv"),
        await admin.http.get("/v1/usage", params={**DAY, "group_by": "model"}, headers={"Accept": "text/csv"}),
    ):
        assert response.headers["content-type"].startswith("text/csv")
        head, *lines = csv.reader(io.StringIO(response.text, newline=""))
        assert head[0] == "model"
        shown = {line[0] for line in lines}
        assert shown == {f"'{name}" if name[0] in "=+-@\t" else name for name in names}
        (line,) = (line for line in lines if line[0] == "plain")
        assert dict(zip(head, line, strict=True)) | {"cost_usd": "0.0000000001", "input_tokens": "10"} == dict(
            zip(head, line, strict=True)
        )
    asked_for_json = await admin.http.get("/v1/usage", params={**DAY, "format": "json"}, headers={"Accept": "text/csv"})
    assert asked_for_json.headers["content-type"] == "application/json"


async def test_every_attempt_is_exported_once(world: World, tenant: UUID) -> None:
    admin, member = await world.caller(tenant, "admin"), await world.caller(tenant, "member")
    # More than a page, most of them at the same moment.
    ids = {str(await used(world, admin, at=NOW + timedelta(seconds=number // 700))) for number in range(1201)}
    mine = await used(world, member, attempt=2, paid_by="tenant", pool="cloud", backend="openai", served_model="=x")
    response = await admin.get("/v1/usage/attempts", **DAY)
    assert response.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(response.text, newline="")))
    assert len(lines) == 1202
    assert {line["generation_id"] for line in lines} == ids | {str(mine)}
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    (line,) = csv.DictReader(io.StringIO((await member.get("/v1/usage/attempts", **DAY)).text))
    assert line == {
        "at": NOW.isoformat(),
        "generation_id": str(mine),
        "attempt": "2",
        "user_id": str(member.user_id),
        "key_id": str(member.key_id),
        "model": "m",
        "pool": "cloud",
        "backend": "openai",
        "served_model": "'=x",
        "paid_by": "tenant",
        "persona": "",
        "source": "provider",
        "input_tokens": "10",
        "cached_input_tokens": "0",
        "output_tokens": "5",
        "reasoning_tokens": "0",
        "cost_usd": "",
        "inputs": "",
    }


async def log(world: World, tenant: UUID, count: int) -> list[bytes]:
    """Lines of the event log; every tenth is of another type and actor."""
    envelopes = []
    for sequence in range(1, count + 1):
        envelope = b'{"id": "%d",  "spaces": "kept"}' % sequence
        envelopes.append(envelope)
        await world.insert(
            "event_log",
            tenant_id=tenant,
            sequence=sequence,
            id=new_id(),
            type="tenant.provisioned.v1" if sequence % 10 else "key.issued.v2",
            subject=f"thing:{sequence}",
            actor="operator" if sequence % 10 else "worker:w",
            time=NOW + timedelta(seconds=sequence),
            correlation_id=UUID(int=sequence % 3),
            envelope=envelope,
            hash=bytes([sequence % 256]),
        )
    await world.insert("tenant_heads", tenant_id=tenant, sequence=count, hash=b"h")
    return envelopes


async def test_the_log_pages_filters_and_records_its_readers(world: World, tenant: UUID) -> None:
    auditor = await world.caller(tenant, "auditor", user=False)
    await log(world, tenant, 45)
    await log(world, new_id(), 5)

    async def sequences(**parameters: Any) -> list[int]:
        response = await auditor.get("/v1/events", **parameters)
        assert response.status_code == 200, response.text
        return [one["sequence"] for one in response.json()["events"]]

    first = (await auditor.get("/v1/events", limit=20)).json()
    assert [one["sequence"] for one in first["events"]] == list(range(1, 21))
    assert first["next_cursor"] == "20"
    assert first["events"][0] == {"sequence": 1, "hash": "01", "event": {"id": "1", "spaces": "kept"}}
    last = (await auditor.get("/v1/events", limit=20, cursor="40")).json()
    assert ([one["sequence"] for one in last["events"]], last["next_cursor"]) == ([41, 42, 43, 44, 45], None)

    assert await sequences(type="key.issued.v2") == [10, 20, 30, 40]
    assert await sequences(actor="worker:w", cursor="10", limit=2) == [20, 30]
    assert await sequences(subject="thing:7") == [7]
    assert await sequences(correlation_id=str(UUID(int=2)), limit=3) == [2, 5, 8]
    since, until = (NOW + timedelta(seconds=5)).isoformat(), (NOW + timedelta(seconds=8)).isoformat()
    assert await sequences(since=since, until=until) == [5, 6, 7]

    reads = [decode(message.payload) for message in world.bus.topics[EVENTS]]
    assert len(reads) == 7
    assert {(read.actor, read.tenantid) for read in reads} == {(f"key:{auditor.key_id}", tenant)}
    assert {message.key for message in world.bus.topics[EVENTS]} == {str(tenant)}
    newest = reads[-1].data
    assert isinstance(newest, AuditRead)
    assert newest.filters == {"since": since, "until": until}
    assert not newest.exported


async def test_the_log_exports_as_ndjson_byte_for_byte(world: World, tenant: UUID) -> None:
    auditor = await world.caller(tenant, "auditor")
    envelopes = await log(world, tenant, 1203)
    for how in ({"params": {"format": "ndjson"}}, {"headers": {"Accept": "application/x-ndjson"}}):
        response = await auditor.http.get("/v1/events", **how)  # type: ignore[arg-type]
        assert response.headers["content-type"].startswith("application/x-ndjson")
        lines = response.content.splitlines()
        assert [orjson.loads(line)["sequence"] for line in lines] == list(range(1, 1204))
        assert all(envelope in line for envelope, line in zip(envelopes, lines, strict=True))
    filtered = await auditor.get("/v1/events", format="ndjson", type="key.issued.v2", cursor="1100")
    assert [orjson.loads(line)["sequence"] for line in filtered.content.splitlines()] == list(range(1110, 1201, 10))
    read = decode(world.bus.topics[EVENTS][-1].payload).data
    assert isinstance(read, AuditRead)
    assert read.exported


async def test_an_export_ends_with_the_log_as_it_was(world: World, tenant: UUID) -> None:
    auditor = await world.caller(tenant, "auditor")
    await log(world, tenant, 3)
    await world.owner.execute("UPDATE read_models.tenant_heads SET sequence = 2")
    exported = await auditor.get("/v1/events", format="ndjson")
    assert [orjson.loads(line)["sequence"] for line in exported.content.splitlines()] == [1, 2]


async def test_a_read_that_cannot_be_recorded_is_refused(world: World, tenant: UUID) -> None:
    auditor = await world.caller(tenant, "auditor")
    await log(world, tenant, 1)
    world.bus.away = True
    for parameters in ({}, {"format": "ndjson"}):
        response = await auditor.get("/v1/events", **parameters)
        assert response.status_code == 503
        assert "spaces" not in response.text


async def test_the_api_pages_are_complete(world: World) -> None:
    document = world.app.openapi()
    ours = {path: item for path, item in document["paths"].items() if path.startswith("/v1/")}
    assert {path for path, item in ours.items() if set(item) != {"get"}} == {"/v1/collections/{collection_id}/search"}
    assert ours["/v1/collections/{collection_id}/search"]["post"]["description"]
    paths = {path: item["get"] for path, item in ours.items() if "get" in item}
    assert set(paths) == {
        "/v1/generations/{generation_id}",
        "/v1/generations/{generation_id}/stream",
        "/v1/conversations",
        "/v1/conversations/{conversation_id}",
        "/v1/usage",
        "/v1/usage/attempts",
        "/v1/events",
        "/v1/audit/verify",
        "/v1/audit/checkpoints",
        "/v1/audit/export",
        "/v1/audit/trace/{correlation_id}",
        "/v1/provider-keys",
        "/v1/session",
        "/v1/sessions",
        "/v1/users",
        "/v1/api-keys",
        "/v1/tenants",
        "/v1/personas",
        "/v1/personas/{persona}",
        "/v1/personas/{persona}/versions",
        "/v1/personas/{persona}/versions/{version}",
        "/v1/personas/{persona}/compare",
        "/v1/personas/{persona}/export",
        "/v1/collections",
        "/v1/collections/{collection_id}",
        "/v1/collections/{collection_id}/documents",
        "/v1/collections/{collection_id}/documents/{document_id}",
        "/v1/batches",
        "/v1/batches/{batch_id}",
        "/v1/batches/{batch_id}/results",
        "/v1/batches/{batch_id}/errors",
    }
    for path, operation in paths.items():
        assert operation["summary"]
        assert operation["description"]
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), (path, parameter["name"])
        statuses = {"200", "401", "403", "422", "503"} | ({"404"} if "{" in path else set())
        assert set(operation["responses"]) == statuses, path
    assert list(paths["/v1/generations/{generation_id}/stream"]["responses"]["200"]["content"]) == ["text/event-stream"]
    assert set(paths["/v1/events"]["responses"]["200"]["content"]) == {"application/json", "application/x-ndjson"}
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        if name.endswith(("View", "Page", "Line", "Group", "Report", "WithMessages")):
            for field, description in schema["properties"].items():
                assert description.get("description"), (name, field)
                nested = any(part in orjson.dumps(description) for part in (b"$ref", b'"array"'))
                assert nested or description.get("examples"), (name, field)
