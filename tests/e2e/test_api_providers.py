"""A whole Parley whose pool asks a provider: tools, images, costs, keys that fail, and cancels."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from backplane.settings import Settings
from backplane.wiring.embedded import owner_url
from cli import provider_keys, tenancy
from cli.failures import CommandError
from tests.e2e.client import Client, Json, eventually
from tests.e2e.running import Up
from tests.providers.script import Call, Script
from tests.providers.server import Providers, providers

pytestmark = pytest.mark.timeout(180)

TOOL = {"name": "look", "description": "Look.", "parameters": {"type": "object", "properties": {}}}
SOON_S = 10.0
"""How long a change of keys may take: 5 s, and what a busy machine takes to notice."""
PER_MINUTE = 6
PICTURE = "data:image/png;base64,iVBORw0KGgo="


@dataclass
class World:
    server: Providers
    up: Up
    client: Client

    open_clients: AsyncExitStack

    async def answered(self, prompt: Json, client: Client | None = None) -> Json:
        client = client or self.client
        response = await client.http.post("/v1/prompts", json={"model": "fast"} | prompt)
        assert response.status_code == 202, response.text
        return await client.ended(response.json()["generation_id"])

    async def tenant(self, name: str) -> Client:
        """The admin of a new tenant."""
        tenant_id = await tenancy.create_tenant(self.settings, name)
        key = await tenancy.issue_key(self.settings, tenant_id, "admin")
        return await self.open_clients.enter_async_context(Client(self.up.url, key))

    @property
    def settings(self) -> Settings:
        """As an operator has them."""
        return Settings(data_dir=self.up.data, pools=json.loads(self.up.environment["PARLEY_POOLS"]))


@pytest.fixture
async def world(tmp_path: Path, short_folder: Path) -> AsyncIterator[World]:
    secret = tmp_path / "key"
    secret.write_text("sk-good\n")
    async with providers() as server, AsyncExitStack() as stack:
        server.add_key("sk-good")
        server.add_key("sk-revoked", status="revoked")
        server.add_key("sk-spare")
        server.add_key("sk-limited", requests_per_minute=PER_MINUTE)
        pool = {
            "backend": "openai",
            "base_url": server.openai_url,
            "models": [{"fast": "gpt-4o-mini"}],
            "keys": ["sk-revoked", f"file:{secret}"],
            "fallbacks": ["spare"],
            "requests_per_minute": 1000,
        }
        spare = {"backend": "openai", "base_url": server.openai_url, "models": ["o4-mini"], "keys": ["sk-spare"]}
        limited = pool | {
            "models": [{"limited": "gpt-4o-mini"}],
            "keys": ["sk-limited"],
            "fallbacks": [],
            "requests_per_minute": PER_MINUTE,
        }
        up = Up(
            short_folder / "providers", PARLEY_POOLS=json.dumps({"cloud": pool, "spare": spare, "limited": limited})
        )
        try:
            up.start()
            await asyncio.to_thread(up.ready)
            yield World(server, up, await stack.enter_async_context(Client(up.url, up.admin_key)), stack)
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

    # How likely each token was is told in the stream, while it comes and afterwards, and with the answer.
    likely = await world.answered({"input": "one", "parameters": {"logprobs": True, "top_logprobs": 2}})
    assert "".join(token["token"] for token in likely["logprobs"]) == likely["content"]
    assert {len(token["top_logprobs"]) for token in likely["logprobs"]} == {2}
    streamed = [event async for event in world.client.stream(likely["id"])]
    told_tokens = [token for event in streamed for token in json.loads(event.data).get("logprobs", ())]
    assert told_tokens == likely["logprobs"]
    assert answers[0]["logprobs"] is None

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
    assert await written(world.up, "sk-") == []


async def test_a_queued_prompt_tells_where_it_stands_and_about_when_it_starts(world: World) -> None:
    client = world.client

    async def submitted() -> str:
        response = await client.http.post("/v1/prompts", json={"model": "limited", "input": "go"})
        assert response.status_code == 202, response.text
        id: str = response.json()["generation_id"]
        return id

    for id in [await submitted() for _ in range(PER_MINUTE)]:
        ended = await client.ended(id)
        assert (ended["status"], ended["queue"]) == ("completed", None), ended
    waiting = [await submitted() for _ in range(3)]
    estimates = []
    for ahead, id in enumerate(waiting):
        told = await eventually(partial(client.generation, id), lambda one: one["queue"]["estimated_wait_s"])
        asked_at = datetime.now(UTC)
        assert told["queue"]["ahead"] == ahead
        estimates.append(asked_at + timedelta(seconds=told["queue"]["estimated_wait_s"]))
        async with aclosing(client.stream(id)) as stream:
            first = await anext(stream)
        assert (first.event, json.loads(first.data)["ahead"]) == ("queued", ahead)
    for id, estimate in zip(waiting, estimates, strict=True):
        ended = await eventually(partial(client.generation, id), lambda one: one["status"] == "completed", within=90)
        began = datetime.fromisoformat(ended["started_at"])
        assert (began - asked_at).total_seconds() > 30, "nothing kept it waiting"
        assert abs((estimate - began).total_seconds()) < 15


async def test_keys_come_and_go_while_it_runs(world: World) -> None:
    platform, acme = world.client, await world.tenant("acme")
    secret = "canary-of-acme"
    world.server.add_key(secret)
    assert await asked_with(world, acme) == "sk-good"

    # A tenant's own key is used for it, soon and without a restart, and for nobody else.
    added = await acme.http.post("/v1/provider-keys", json={"pool": "cloud", "key": secret, "name": "ours"})
    assert added.status_code == 201, added.text
    told = [added.text]
    listed = (await acme.http.get("/v1/provider-keys")).json()
    assert listed == {"provider_keys": [added.json()]}
    assert set(added.json()) == {"id", "pool", "name", "fingerprint", "added_at"}
    await eventually(lambda: asked_with(world, acme), lambda key: key == secret, within=SOON_S)
    assert {await asked_with(world, acme) for _ in range(3)} == {secret}
    assert {await asked_with(world, platform) for _ in range(3)} == {"sk-good"}

    # The same again is no second one, and what is none is refused by its field.
    again = await acme.http.post("/v1/provider-keys", json={"pool": "cloud", "key": secret})
    assert (again.status_code, again.json()["id"]) == (409, added.json()["id"])
    told.append(again.text)
    for pool, key, field in (
        ("nowhere", secret, "body.pool"),
        ("cloud", "", "body.key"),
        ("cloud", f"{secret} two", "body.key"),
        ("cloud", secret * 1000, "body.key"),
        ("cloud", "default", "body.key"),
        ("cloud", 7, "body.key"),
    ):
        refused = await acme.http.post("/v1/provider-keys", json={"pool": pool, "key": key})
        assert refused.status_code == 422, refused.text
        assert [error["field"] for error in refused.json()["errors"]] == [field]
        told.append(refused.text)

    # One that the provider refuses is the tenant's affair: its prompts end and say so, its log tells it.
    world.server.add_key(secret, status="revoked")
    ended = await world.answered({"input": "one"}, acme)
    assert (ended["status"], ended["reason"]) == ("failed", "own_keys_refused")
    assert "the tenant's own keys for pool 'cloud'" in ended["detail"]
    (news,) = await eventually(lambda: acme.events(type="provider_key.set_aside.v1"), len)
    assert (news["data"]["key_id"], news["data"]["pool"]) == (added.json()["fingerprint"], "cloud")
    assert await platform.events(type="provider_key.set_aside.v1") == []

    # Retired, it is asked nothing any more, and the platform's keys are used again.
    retired = await acme.http.delete(f"/v1/provider-keys/{added.json()['id']}")
    assert retired.status_code == 204
    assert (await acme.http.delete(f"/v1/provider-keys/{added.json()['id']}")).status_code == 204
    await eventually(lambda: asked_with(world, acme), lambda key: key == "sk-good", within=SOON_S)
    before = len(world.server.ledger[secret].asked)
    assert {await asked_with(world, acme) for _ in range(3)} == {"sk-good"}
    assert len(world.server.ledger[secret].asked) == before
    assert (await acme.http.get("/v1/provider-keys")).json() == {"provider_keys": []}

    # What was decided is on record, once each, by whom.
    record = await eventually(acme.events, lambda found: {"provider_key.retired.v1"} <= {one["type"] for one in found})
    decided = [one for one in record if one["type"] in ("provider_key.added.v1", "provider_key.retired.v1")]
    assert [(one["type"], one["subject"]) for one in decided] == [
        (f"provider_key.{what}.v1", f"provider_key:{added.json()['id']}") for what in ("added", "retired")
    ]
    assert all(one["actor"].startswith("key:") for one in decided)

    # An operator adds one for everybody, and one for a tenant.
    world.server.add_key("canary-of-platform")
    id = (await parley(world, "add", "--pool", "cloud", "--name", "all", stdin="canary-of-platform\n")).strip()
    (one,) = map(json.loads, (await parley(world, "list")).splitlines())
    assert (one["id"], one["pool"], one["name"]) == (id, "cloud", "all")
    await eventually(lambda: asked_with(world, platform), lambda key: key == "canary-of-platform", within=SOON_S)
    await parley(world, "retire", id)
    settings = world.settings
    world.server.add_key("canary-of-operator")
    theirs = await provider_keys.add(settings, "acme", "cloud", "canary-of-operator", "")
    await eventually(lambda: asked_with(world, acme), lambda key: key == "canary-of-operator", within=SOON_S)
    assert [one["id"] for one in await provider_keys.live(settings, "acme")] == [theirs.id]
    assert await provider_keys.live(settings, None) == []
    for tenant, pool, key, says in (
        ("acme", "cloud", "canary-of-operator", f"added to the pool before, as {theirs.id}"),
        ("nobody", "cloud", "canary", "there is no tenant 'nobody'"),
        (None, "nowhere", "canary", "'nowhere' is not there"),
        (None, "cloud", "", "must not be empty"),
    ):
        with pytest.raises(CommandError, match=says):
            await provider_keys.add(settings, tenant, pool, key, "")
    with pytest.raises(CommandError, match="at most 200"):
        await provider_keys.add(settings, None, "cloud", "canary", "n" * 201)
    with pytest.raises(CommandError, match=f"no provider key {theirs.id} of the platform"):
        await provider_keys.retire(settings, None, theirs.id)
    assert [await provider_keys.retire(settings, "acme", theirs.id) for _ in range(2)] == [True, False]

    told += [json.dumps(await client.events()) for client in (acme, platform)]
    assert [text for text in told if "canary" in text] == []
    assert await written(world.up, "canary") == []


def test_a_pool_may_have_nothing_but_a_key_that_was_added(short_folder: Path) -> None:
    pools = {"cloud": {"backend": "openai", "models": ["gpt-4o-mini"]}}
    up = Up(short_folder / "keyless", PARLEY_POOLS=json.dumps(pools), OPENAI_API_KEY="")
    try:
        said = up.parley("up", code=1)
        assert "pool 'cloud' has no key: set OPENAI_API_KEY, or `keys` of [pools.cloud], or add one with" in said
        up.parley("provider-key", "add", "--pool", "cloud", stdin="sk-only")
        up.start()
        up.ready()
        assert up.stop() == 0
    finally:
        up.end()


async def parley(world: World, *arguments: str, stdin: str = "") -> str:
    """`parley provider-key …`, while the provider goes on answering."""
    return await asyncio.to_thread(lambda: world.up.parley("provider-key", *arguments, stdin=stdin))


async def asked_with(world: World, client: Client) -> str:
    """The key that a prompt of this client's is answered with."""
    ended = await world.answered({"input": "one"}, client)
    assert ended["status"] == "completed", ended
    return world.server.ledger.tagged(f"{ended['id']}.{ended['attempt']}")[-1].key


async def written(up: Up, word: str) -> list[str]:
    """Logs and tables that ``word`` stands in."""
    logs = [log.name for log in (up.data / "logs").iterdir() if word in log.read_text(errors="replace")]
    database = await asyncpg.connect(owner_url(Settings(data_dir=up.data)))
    try:
        tables = await database.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname IN ('control', 'work', 'read_models', 'bus')"
        )
        assert len(tables) > 10
        for table in tables:
            for row in await database.fetch(f"SELECT * FROM {table['name']}"):
                values = (value if isinstance(value, bytes) else str(value).encode() for value in row.values())
                if word.encode() in b"".join(values):
                    logs.append(table["name"])
    finally:
        await database.close()
    return logs
