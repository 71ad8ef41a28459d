"""Clients of the system whose personas were called personalities, as its README tells them to ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from backplane.ports.identifiers import new_id
from tests.e2e.client import DEADLINE_S, Client, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up
from tests.web import page, response, web

pytestmark = pytest.mark.timeout(120)


def scripted(say: str = "Hello.", **script: Any) -> str:
    return f"{say} script: {json.dumps(script)}"


ENDLESS = scripted(count=100_000, delay_s=0.02)


class Old:
    """A client of the earlier system, who knows a persona."""

    def __init__(self, url: str, caller: Client, persona: str, sockets: AsyncExitStack) -> None:
        self.url = url.replace("http://", "ws://")
        self.caller = caller
        self.persona = persona
        self._sockets = sockets

    async def socket(self, persona: str | None = None, **how: Any) -> ClientConnection:
        if not how:
            how = {"additional_headers": {"Authorization": f"Bearer {self.caller.key}"}}
        query = how.pop("query", "")
        url = f"{self.url}/gpt-socket/{persona or self.persona}{query}"
        return await self._sockets.enter_async_context(connect(url, proxy=None, **how))

    async def asked(self, prompt: str) -> tuple[str, str]:
        """The answer to a prompt on a socket of its own, and the session that its end names."""
        return await heard(await self.socket(), prompt)


async def heard(socket: ClientConnection, prompt: str) -> tuple[str, str]:
    await socket.send(prompt)
    return await told(socket)


async def told(socket: ClientConnection) -> tuple[str, str]:
    said = ""
    async with asyncio.timeout(DEADLINE_S):
        while not (frame := str(await socket.recv())).startswith("<END"):
            said += frame
    return said, frame.removeprefix("<END").removesuffix(">").strip()


async def persona_of(admin: Client, **definition: Any) -> str:
    name = f"whisper-{new_id()}"
    saved = await admin.http.post("/v1/personas", json={"name": name, "definition": definition})
    assert saved.status_code == 201, saved.text
    return name


@pytest.fixture
async def old(parley: Up, admin: Client) -> AsyncIterator[Old]:
    async with AsyncExitStack() as sockets:
        persona = await persona_of(admin, system="You whisper.", description="Whispers.")
        yield Old(parley.url, admin, persona, sockets)


async def test_tokens_come_as_frames_and_the_end_names_the_session(old: Old) -> None:
    socket = await old.socket()
    said, session = await heard(socket, scripted(tokens=["a ", "b"]))
    assert said == "a b"
    conversation_id = UUID(session.removeprefix("urn:uuid:"))
    assert session == f"urn:uuid:{conversation_id}"
    # The README: frames sent to the server are treated as prompts. The next one goes on.
    assert (await heard(socket, scripted(tokens=["c"])))[1] == session
    again, named = await old.asked(f"|SESSION|{session}|/SESSION|{scripted(tokens=['d'])}")
    assert (again, named) == ("d", session)

    async def messages() -> list[tuple[str, str]]:
        shown = await old.caller.get(f"/v1/conversations/{conversation_id}")
        return [(one["role"], one["content"]) for one in shown["messages"]]

    found = await eventually(messages, lambda found: len(found) == 7 and all(one[1] is not None for one in found))
    assert found[0] == ("system", "You whisper.")
    assert [content for role, content in found if role == "assistant"] == ["a b", "c", "d"]


@pytest.mark.parametrize("mark", ["CONTEXT", "CONTENT"])
async def test_what_is_to_be_considered_stands_in_front(old: Old, mark: str) -> None:
    said, _ = await old.asked(f"|{mark}|The kettle is red.|/{mark}| {scripted('Which colour?', echo=True)}")
    assert "The kettle is red." in said
    assert f"|{mark}|" not in said


async def test_sites_and_pages_are_read_before_it_answers(old: Old) -> None:
    async with web() as server:
        server.has["/news"] = response(200, "It rains in Bergen.", type="text/plain")
        server.has["/tea"] = response(200, page("All about tea", "Tea is green, as everybody knows."))
        http = old.caller.http
        assert (await http.put("/v1/fetching", json={"enabled": True, "robots": False})).is_success
        site = {"name": "news", "domain": "news.example", "urls": [server.url("/news")]}
        assert (await http.post("/v1/sites", json=site)).status_code == 201
        asked = scripted("Any news?", echo=True)
        by_site, session = await old.asked(f"|RAG|news.example|/RAG| {asked}")
        by_url, _ = await old.asked(f"{server.url('/tea')} {scripted('Which colour?', echo=True)}")
        assert sorted(server.paths) == ["/news", "/tea"]
    assert "It rains in Bergen." in by_site
    assert "Any news?" in by_site
    assert "|RAG|" not in by_site
    assert "Tea is green" in by_url
    assert "Which colour?" in by_url
    conversation_id = session.removeprefix("urn:uuid:")
    # The socket's end is the stream's: the read model hears of it after.
    shown = await eventually(
        lambda: old.caller.messages(conversation_id), lambda found: found[-1]["status"] == "completed"
    )
    (answer,) = [one for one in shown if one["role"] == "assistant"]
    assert [one["site"] for one in answer["sources"]] == ["news"]


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("|RAG|nowhere.example|/RAG| What is new?", "no site"),
        ("|CONTEXT|It is red. Which colour?", "has no `|/CONTEXT|`"),
        ("", "is empty"),
        (f"|SESSION|{uuid4()}|/SESSION|Go on.", "no such conversation"),
        ("|SESSION|yesterday's|/SESSION|Go on.", "no such session"),
        (scripted(fail_after=1, fail_kind="refused"), "breaks off"),
    ],
    ids=["site", "mark", "empty", "session", "no session", "failed"],
)
async def test_what_goes_wrong_is_a_line_and_the_socket_goes_on(old: Old, prompt: str, why: str) -> None:
    socket = await old.socket()
    said, _ = await heard(socket, prompt)
    assert "Error: " in said
    assert why in said
    assert (await heard(socket, scripted(tokens=["whole"])))[0] == "whole"


async def test_a_key_stands_in_a_header_in_the_url_or_as_a_subprotocol(old: Old) -> None:
    key = old.caller.key
    in_url = await old.socket(query=f"?key={key}")
    bare = await old.socket(additional_headers={"Authorization": key})
    for socket in (in_url, bare):
        assert (await heard(socket, scripted(tokens=["a"])))[0] == "a"
    spoken = await old.socket(subprotocols=[Subprotocol("parley"), Subprotocol(key)])
    assert spoken.subprotocol == "parley"
    assert (await heard(spoken, scripted(tokens=["a"])))[0] == "a"
    for how in ({"query": "?key=none"}, {"additional_headers": {"Authorization": "none"}}, {"query": "?"}):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await old.socket(**how)
        assert refused.value.response.status_code == 401
        assert b"Error: " in refused.value.response.body
    with pytest.raises(websockets.InvalidStatus) as missing:
        await old.socket("nobody")
    assert missing.value.response.status_code == 404


async def test_a_key_that_is_revoked_asks_nothing_more_on_a_socket_that_is_open(old: Old, callers: Callers) -> None:
    made = await old.caller.http.post("/v1/api-keys", json={"name": "old"})
    socket = await old.socket(query=f"?key={made.json()['key']}")
    assert (await heard(socket, scripted(tokens=["a"])))[0] == "a"
    await callers.revoke(made.json()["key"])

    async def refused() -> str:
        return (await heard(socket, scripted(tokens=["a"])))[0]

    assert "revoked" in await eventually(refused, lambda said: said.startswith("Error: "))


async def test_who_hangs_up_stops_the_answer(old: Old) -> None:
    socket = await old.socket()
    await socket.send(ENDLESS)
    assert await socket.recv()
    # What waits behind it does not hide that the client goes away.
    await socket.send("And then?")
    await socket.close()

    async def conversations() -> Any:
        return await old.caller.get("/v1/conversations")

    (listed,) = (await eventually(conversations, lambda found: bool(found["conversations"])))["conversations"]
    shown = await old.caller.get(f"/v1/conversations/{listed['id']}")
    assert (await old.caller.ended(shown["messages"][-1]["id"]))["status"] == "cancelled"


async def test_frames_that_are_no_prompts_end_the_connection(old: Old) -> None:
    for sent, code in ((b"bytes", 1003), ("x" * 2_000_000, 1009)):
        socket = await old.socket()
        await socket.send(sent)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


async def test_prompts_wait_their_turn_and_not_too_many_of_them(old: Old) -> None:
    socket = await old.socket()
    for word in ("one", "two", "three"):
        await socket.send(scripted(tokens=[word]))
    assert [(await told(socket))[0] for _ in range(3)] == ["one", "two", "three"]
    await socket.send(ENDLESS)
    for _ in range(20):
        await socket.send("And then?")
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await told(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


async def test_an_answer_in_plain_text(old: Old) -> None:
    http, path = old.caller.http, f"/gpt/{old.persona}"
    first = await http.get(path, params={"prompt": scripted(tokens=["a ", "b"])})
    assert (first.status_code, first.text) == (200, "a b"), first.text
    assert first.headers["content-type"].startswith("text/plain")
    session = first.headers["parley-conversation-id"]
    form = {"prompt": scripted(tokens=["c"]), "session": f"urn:uuid:{session}"}
    second = await http.post(path, data=form, headers={"Authorization": old.caller.key})
    assert (second.status_code, second.text) == (200, "c"), second.text
    assert second.headers["parley-conversation-id"] == session
    by_both = await http.post(path, params={"prompt": scripted(tokens=["d"])}, data={"session": session})
    assert (by_both.text, by_both.headers["parley-conversation-id"]) == ("d", session)


@pytest.mark.parametrize(
    ("query", "status", "why"),
    [
        ({}, 400, "prompt: is missing"),
        ({"prompt": "Go on.", "session": str(uuid4())}, 404, "no such conversation"),
        ({"prompt": "Go on.", "session": "yesterday's"}, 404, "no such session"),
        ({"prompt": scripted(fail_after=0, fail_kind="refused")}, 500, "breaks off"),
    ],
)
async def test_what_goes_wrong_in_plain_text_is_a_line(old: Old, query: dict[str, str], status: int, why: str) -> None:
    refused = await old.caller.http.get(f"/gpt/{old.persona}", params=query)
    assert refused.status_code == status, refused.text
    assert refused.text.startswith("Error: ")
    assert why in refused.text
    assert refused.headers["content-type"].startswith("text/plain")


async def test_who_goes_away_from_plain_text_stops_the_answer(old: Old) -> None:
    asking = asyncio.create_task(old.caller.http.post(f"/gpt/{old.persona}", data={"prompt": ENDLESS}))
    (listed,) = (
        await eventually(lambda: old.caller.get("/v1/conversations"), lambda found: bool(found["conversations"]))
    )["conversations"]
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    shown = await old.caller.get(f"/v1/conversations/{listed['id']}")
    assert (await old.caller.ended(shown["messages"][-1]["id"]))["status"] == "cancelled"


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


async def test_an_answer_that_keeps_to_a_schema(old: Old) -> None:
    body = {"prompt": scripted("Who?", tokens=['{"name": ', '"Ada"}']), "schema": SCHEMA}
    answer = await old.caller.http.post(f"/toil/{old.persona}", json=body)
    assert (answer.status_code, answer.json()) == (200, {"name": "Ada"}), answer.text
    body = {"prompt": scripted("Who?", tokens=['{"any": 1}']), "text": "Ada Lovelace wrote the first program."}
    answer = await old.caller.http.post(f"/toil/{old.persona}", json=body)
    assert (answer.status_code, answer.json()) == (200, {"any": 1}), answer.text
    shown = await old.caller.ended(answer.headers["parley-generation-id"])
    assert shown["sources"][0]["kind"] == "text"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"prompt": scripted(tokens=['{"name": 1}']), "schema": SCHEMA}, 502, "answer_does_not_fit"),
        ({"prompt": scripted(tokens=["no JSON"])}, 502, "answer_does_not_fit"),
        ({"prompt": "Who?", "schema": {"type": "thing"}}, 400, "invalid_schema"),
        ({"schema": SCHEMA}, 400, "invalid_request"),
        ({"prompt": 7}, 400, "invalid_request"),
        ({"prompt": "Who?", "text": "http://127.0.0.1/secret"}, 400, "source_refused"),
    ],
    ids=["schema", "no JSON", "no schema", "no prompt", "no text", "URL"],
)
async def test_what_the_model_cannot_is_an_object(old: Old, body: dict[str, Any], status: int, code: str) -> None:
    refused = await old.caller.http.post(f"/toil/{old.persona}", json=body)
    told = refused.json()
    assert (refused.status_code, told.keys(), told["error"].keys()) == (status, {"error"}, {"code", "message"}), told
    assert told["error"]["code"] == code, told


async def test_what_a_persona_is_and_how_much_was_asked(old: Old) -> None:
    shown = (await old.caller.http.get(f"/describe/{old.persona}")).json()
    assert shown == {
        "name": old.persona,
        "description": "Whispers.",
        "model": "script",
        "hf_repo": "script",
        "context_window": None,
    }
    missing = await old.caller.http.get("/describe/nobody")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    await old.asked(scripted(tokens=["a", "b"]))

    async def stats() -> Any:
        return (await old.caller.http.get("/platform/stats")).json()

    found = await eventually(stats, lambda found: found["generations"] == 1)
    assert found["output_tokens"] == 2
    assert [one["model"] for one in found["models"]] == ["script"]


@pytest.mark.parametrize("path", ["/embedding/document", "/embedding/query"])
async def test_a_vector_is_a_bare_list_of_numbers(old: Old, path: str) -> None:
    http, cat, tax = old.caller.http, "A cat sleeps on the sofa.", "The tax form is due in March."
    openai = await http.post("/v1/embeddings", json={"model": "minilm", "input": [cat, tax]})
    of_cat, of_tax = (one["embedding"] for one in openai.json()["data"])
    bare = {"Authorization": old.caller.key}
    for answer in (
        await http.get(path, params={"text": cat}, headers=bare),
        await http.post(path, params={"text": cat}),
        await http.post(path, json={"text": cat}),
    ):
        assert answer.status_code == 200, answer.text
        assert answer.json() == pytest.approx(of_cat, abs=1e-5)
    both = (await http.post(path, json={"text": [cat, tax]})).json()
    assert both == [pytest.approx(of_cat, abs=1e-5), pytest.approx(of_tax, abs=1e-5)]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"method": "GET"}, "text: is missing"),
        ({"method": "POST"}, "text: is missing"),
        ({"method": "POST", "json": {"text": ["a", ""]}}, "text: is missing"),
        ({"method": "POST", "json": {"text": []}}, "text"),
        ({"method": "GET", "params": {"text": "word " * 300}}, "300 tokens"),
    ],
)
async def test_what_no_vector_is_made_of_is_refused(old: Old, asked: Any, says: str) -> None:
    refused = await old.caller.http.request(url="/embedding/query", **asked)
    assert refused.status_code == 400, refused.text
    assert says in refused.json()["error"]["message"]
