"""A whole Parley whose pool asks a provider: tools, images, costs, keys that fail, and cancels."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.client import Client, Json, eventually
from tests.e2e.running import Up
from tests.providers.script import Call, Script
from tests.providers.server import Providers, providers

pytestmark = pytest.mark.timeout(180)

TOOL = {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}
PICTURE = "data:image/png;base64,iVBORw0KGgo="


@dataclass
class World:
    server: Providers
    up: Up
    client: Client

    async def answered(self, prompt: Json) -> Json:
        response = await self.client.http.post("/v1/prompts", json={"model": "fast"} | prompt)
        assert response.status_code == 202, response.text
        return await self.client.ended(response.json()["generation_id"])


@pytest.fixture
async def world(tmp_path: Path, short_folder: Path) -> AsyncIterator[World]:
    secret = tmp_path / "key"
    secret.write_text("sk-good\n")
    async with providers() as server, AsyncExitStack() as stack:
        server.add_key("sk-good")
        server.add_key("sk-revoked", status="revoked")
        server.add_key("sk-spare")
        pool = {
            "backend": "openai",
            "base_url": server.openai_url,
            "models": [{"fast": "gpt-4o-mini"}],
            "keys": ["sk-revoked", f"file:{secret}"],
            "fallbacks": ["spare"],
        }
        spare = {"backend": "openai", "base_url": server.openai_url, "models": ["o4-mini"], "keys": ["sk-spare"]}
        up = Up(short_folder / "providers", PARLEY_POOLS=json.dumps({"cloud": pool, "spare": spare}))
        try:
            up.start()
            await asyncio.to_thread(up.ready)
            yield World(server, up, await stack.enter_async_context(Client(up.url, up.admin_key)))
            assert await asyncio.to_thread(up.stop) == 0
        finally:
            up.end()


async def test_a_pool_of_keys_behind_a_whole_parley(world: World) -> None:
    # A revoked key among good ones is not noticed, and what was really served is told, with its cost.
    answers = await asyncio.gather(*(world.answered({"input": "one two three"}) for _ in range(4)))
    assert {one["status"] for one in answers} == {"completed"}
    assert {one["attempt"] for one in answers} == {1}
    assert answers[0]["model"] == "fast"
    assert answers[0]["served"] == {"pool": "cloud", "model": "gpt-4o-mini"}
    used = answers[0]["usage"]
    assert (used["input_tokens"], used["output_tokens"], used["source"]) == (3, 16, "provider")
    assert float(used["cost_usd"]) == pytest.approx((3 * 0.15 + 16 * 0.60) / 1e6)
    (group,) = (await world.client.get("/v1/usage", group_by="model"))["groups"]
    assert group["generations"] == 4
    assert float(group["cost_usd"]) == pytest.approx(4 * float(used["cost_usd"]))

    # The model asks for a tool; its result goes back with the next prompt, and the provider takes the conversation.
    world.server.queue(Script(calls=(Call(arguments={}),)))
    asked = await world.answered({"input": "What do you see?", "tools": [TOOL]})
    assert asked["finish_reason"] == "tool_calls"
    (call,) = asked["tool_calls"]
    assert (call["name"], json.loads(call["arguments"])) == ("look", {})
    streamed = [event async for event in world.client.stream(asked["id"])]
    pieces = [piece for event in streamed for piece in json.loads(event.data).get("tool_calls", ())]
    assert "".join(piece["arguments"] for piece in pieces) == call["arguments"]
    told = await world.answered(
        {
            "parent_message_id": asked["id"],
            "messages": [{"role": "tool", "tool_call_id": call["id"], "content": "A cat"}],
            "tools": [TOOL],
        }
    )
    assert told["status"] == "completed", told
    last = world.server.ledger["sk-good"].asked[-1].body["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "tool"]

    # A picture reaches it; what it cannot do is refused at the door.
    parts = [{"type": "text", "text": "And this?"}, {"type": "image", "url": PICTURE}]
    assert (await world.answered({"messages": [{"role": "user", "content": parts}]}))["status"] == "completed"
    refused = await world.client.http.post(
        "/v1/prompts", json={"model": "fast", "input": "a", "response_format": {"json_schema": {}}, "tools": [{}]}
    )
    assert refused.status_code == 422

    # What one pool cannot serve another does, and everybody is told.
    world.server.queue(Script(fault="404"), key="sk-good")
    handed_on = await world.answered({"input": "one two three"})
    assert (handed_on["status"], handed_on["attempt"], handed_on["model"]) == ("completed", 2, "fast")
    assert handed_on["served"] == {"pool": "spare", "model": "o4-mini"}
    streamed = [event async for event in world.client.stream(handed_on["id"])]
    assert json.loads(streamed[-1].data)["served"] == handed_on["served"]
    conversation = await world.client.get(f"/v1/conversations/{handed_on['conversation_id']}")
    assert [one["served_model"] for one in conversation["messages"]] == [None, "o4-mini"]
    assert len(world.server.ledger["sk-spare"].asked) == 1

    # A cancel reaches the provider.
    world.server.queue(Script(words=1000, token_s=0.02))
    accepted = (await world.client.http.post("/v1/prompts", json={"model": "fast", "input": "go on"})).json()
    await eventually(lambda: world.client.generation(accepted["generation_id"]), lambda one: one["status"] == "running")
    cancelled_at = time.monotonic()
    await world.client.http.post(accepted["cancel_url"])
    ended = await world.client.ended(accepted["generation_id"])
    assert (ended["status"], ended["usage"]["source"]) == ("cancelled", "estimated")
    await world.server.until(lambda: world.server.ledger["sk-good"].running == 0)
    (entry,) = world.server.ledger["sk-good"].aborted
    assert entry.ended_at is not None
    assert entry.ended_at - cancelled_at < 5

    # No secret is in a log, nor anywhere that a service wrote.
    for log in (world.up.data / "logs").iterdir():
        assert "sk-" not in log.read_text(errors="replace"), log.name
