"""Clients of the chat service with characters, as its manual's examples are: a bare key, and its very words."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from backplane.security.api_key import ApiKey
from tests.e2e.client import Client, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)


def scripted(say: str = "Hi!", **script: Any) -> str:
    return f"{say} script: {json.dumps(script)}"


class Old:
    """A client that sends its key bare."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.key = client.key

    async def post(self, path: str, body: object = None, key: str | None = None, **how: Any) -> httpx.Response:
        return await self.client.http.post(path, json=body, headers={"Authorization": key or self.key}, **how)

    async def get(self, path: str, key: str | None = None) -> httpx.Response:
        return await self.client.http.get(path, headers={"Authorization": key or self.key})

    async def chat(self, message: str, **more: Any) -> Any:
        answer = await self.post("/chat/", {"message": message, "model": "gpt-4"} | more)
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"response", "chat_id"}
        return answer.json()

    async def sign_up(self, username: str) -> str:
        form = {"username": username, "password": "Pasw0rd"}
        made = await self.client.http.post("/signup/", data=form, headers={"Authorization": self.key})
        assert made.status_code == 200, made.text
        assert made.json().keys() == {"message", "api_key"}
        assert made.json()["message"] == "User created successfully."
        key: str = made.json()["api_key"]
        return key


@pytest.fixture
def old(admin: Client) -> Old:
    return Old(admin)


async def test_who_signs_up_has_a_key_that_chats(old: Old) -> None:
    key = await old.sign_up("John_Smith,")
    first = await old.post("/chat/", {"message": scripted(tokens=["a"]), "model": "script"}, key)
    assert (first.status_code, first.json()["response"]) == (200, "a"), first.text
    users = (await old.client.get("/v1/users"))["users"]
    assert [(one["name"], one["role"]) for one in users] == [("John_Smith,", "member")]
    again = await old.client.http.post(
        "/signup/", data={"username": "John_Smith,", "password": "x"}, headers={"Authorization": old.key}
    )
    assert (again.status_code, again.json()) == (409, {"detail": "Username already registered"})


async def test_a_chat_goes_on_where_its_id_is_given(old: Old) -> None:
    first = await old.chat(scripted(tokens=["a"]))
    second = await old.chat(scripted(tokens=["b"]), chat_id=first["chat_id"])
    assert (first["response"], second["response"], second["chat_id"]) == ("a", "b", first["chat_id"])
    alone = await old.chat(scripted(tokens=["c"]))
    assert alone["chat_id"] != first["chat_id"]


async def test_a_character_speaks_as_it_was_made_and_thinks_unseen(old: Old) -> None:
    made = await old.post(
        "/create_npc/",
        {"char_descr": "A gruff {innkeeper}.", "world_descr": "A valley without winter.", "has_scratchpad": True},
    )
    assert made.status_code == 200, made.text
    assert made.json()["status"] == "NPC successfully saved"
    npc_id = made.json()["npc_id"]
    tokens = ["<scratchpad>Money?</scratchpad>", "Boots off first."]
    body = {"npc_id": npc_id, "message": scripted("A room?", tokens=tokens), "model": "script"}
    answer = await old.post("/chat_npc/", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["response"].strip() == "Boots off first."
    chat_id = answer.json()["chat_id"]
    shown = await eventually(
        lambda: old.client.get(f"/v1/conversations/{chat_id}"), lambda found: bool(found["messages"])
    )
    system = shown["messages"][0]["content"]
    assert system.startswith("WORLD SETTING: A valley without winter.\n###\nA gruff {innkeeper}.")
    again = await old.post("/chat_npc/", body | {"chat_id": chat_id})
    assert again.json()["chat_id"] == chat_id
    shown = await old.client.get(f"/v1/personas/{npc_id}")
    assert shown["name"] == npc_id


async def test_a_chat_that_ends_has_a_summary_and_admins_read_it(old: Old) -> None:
    key = await old.sign_up("Ada")
    hello = scripted("Hello!", tokens=["Good morning."])
    said = (await old.post("/chat/", {"message": hello, "model": "script"}, key)).json()
    ended = await old.post("/end_chat_session/", None, key, params={"chat_id": said["chat_id"]})
    assert (ended.status_code, ended.json()) == (200, {"status": "Chat session ended, summary saved"}), ended.text
    answer = await old.get(f"/chat/{key}/{said['chat_id']}/history")
    assert answer.status_code == 200, answer.text
    history = answer.json()
    assert history.keys() == {"chat_id", "user_id", "history", "summary"}
    assert [json.loads(one) for one in history["history"]] == [
        {"text": hello, "role": "user"},
        {"text": "Good morning.", "role": "assistant"},
    ]
    assert history["summary"]
    assert str(UUID(history["user_id"])) == history["user_id"]
    more = await old.post("/chat/", {"message": "More?", "model": "script", "chat_id": said["chat_id"]}, key)
    assert (more.status_code, more.json().keys()) == (409, {"detail"})
    for path, asker in (
        (f"/chat/{key}/{said['chat_id']}/history", key),
        (f"/chat/{key}/{said['chat_id']}/history", "none"),
    ):
        refused = await old.get(path, asker)
        assert (refused.status_code, refused.json()) == (403, {"detail": "Unauthorized"})
    for path in (f"/chat/{ApiKey.make().reveal()}/{said['chat_id']}/history", f"/chat/{key}/{uuid4()}/history"):
        missing = await old.get(path)
        assert (missing.status_code, missing.json()) == (404, {"detail": "Chat history not found for this user"})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/", {"message": "Hi", "model": "script"}),
        ("/create_npc/", {"char_descr": "a", "world_descr": "b", "has_scratchpad": False}),
        ("/chat_npc/", {"npc_id": "a", "message": "Hi", "model": "script"}),
        ("/rag/", {"query": "Hi", "model": "script"}),
        ("/add_to_rag_db/", {"text": "a"}),
        ("/end_chat_session/?chat_id=a", None),
    ],
)
async def test_who_has_no_key_is_told_so_in_their_words(old: Old, path: str, body: object) -> None:
    for key in ("token4724306863716988259", "none"):
        refused = await old.post(path, body, key)
        assert (refused.status_code, refused.json()) == (403, {"detail": "Unauthorized"}), refused.text


async def test_who_is_no_admin_makes_no_character(old: Old, callers: Callers) -> None:
    member = await callers.caller(await callers.tenant(), "member")
    refused = await old.post("/create_npc/", {"char_descr": "a", "world_descr": "b"}, member.key)
    assert (refused.status_code, refused.json()) == (403, {"detail": "Unauthorized"})
    nobody = await old.client.http.post(
        "/signup/", data={"username": "a", "password": "b"}, headers={"Authorization": ""}
    )
    assert (nobody.status_code, nobody.json()) == (403, {"detail": "Unauthorized"})


async def test_the_other_errors_in_their_words(parley: Up, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    old = Old(await callers.caller(tenant_id, "admin"))
    npc = await old.post("/chat_npc/", {"npc_id": str(uuid4()), "message": "Hi", "model": "script"})
    assert (npc.status_code, npc.json()) == (404, {"detail": "NPC not found"})
    chat = await old.post("/chat/", {"message": "Hi", "model": "script", "chat_id": str(uuid4())})
    assert (chat.status_code, chat.json().keys()) == (404, {"detail"})
    missing = await old.post("/chat/", {"model": "script"})
    assert (missing.status_code, missing.json()["detail"][0]["loc"]) == (422, ["body", "message"])
    unknown = await old.post("/chat/", {"message": "Hi", "model": "gpt-17"})
    assert (unknown.status_code, unknown.json()["detail"][0]["loc"]) == (422, ["body", "model"])
    parley.parley("limits", "set", "--tenant", str(tenant_id), "--requests-per-minute", "1")
    await old.chat(scripted(tokens=["a"]))
    limited = await old.post("/chat/", {"message": "Hi", "model": "script"})
    assert (limited.status_code, limited.json()) == (429, {"detail": "Rate limit exceeded"})
    assert int(limited.headers["retry-after"]) >= 1


async def test_answers_come_from_documents(old: Old) -> None:
    asked = {"query": scripted("What is LLMOps?", echo=True), "model": "script", "use_reranker": True}
    asked |= {"top_k_retrieve": 5, "top_k_rank": 2, "max_out_tokens": 1024}
    early = await old.post("/rag/", asked)
    assert (early.status_code, early.json().keys()) == (404, {"detail"})
    assert (await old.get("/reindex/")).status_code == 404
    for text in ("All you need is LLMOps", "Tea is a drink."):
        added = await old.post("/add_to_rag_db/", {"text": text})
        assert (added.status_code, added.json()) == (200, None), added.text
    (collection,) = (await old.client.get("/v1/collections"))["collections"]
    assert collection["name"] == "rag"

    async def documents() -> Any:
        return (await old.client.get(f"/v1/collections/{collection['id']}/documents"))["documents"]

    await eventually(documents, lambda found: [one["status"] for one in found] == ["ready"] * 2)
    answer = await old.post("/rag/", asked)
    assert answer.status_code == 200, answer.text
    assert "All you need is LLMOps" in answer.json()["response"]
    again = await old.get("/reindex/")
    assert (again.status_code, again.json()) == (200, None)


async def test_who_goes_away_stops_the_answer(old: Old) -> None:
    endless = scripted(count=100_000, delay_s=0.02)
    asking = asyncio.create_task(old.chat(endless))
    (listed,) = (
        await eventually(lambda: old.client.get("/v1/conversations"), lambda found: bool(found["conversations"]))
    )["conversations"]
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    shown = await old.client.get(f"/v1/conversations/{listed['id']}")
    assert (await old.client.ended(shown["messages"][-1]["id"]))["status"] == "cancelled"
