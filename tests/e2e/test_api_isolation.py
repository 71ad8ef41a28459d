"""Tenants never meet: every operation of the API pages with another tenant's ids, and all that lies between."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from typing import get_args
from uuid import UUID

import httpx
import pytest
import redis.asyncio
from fastapi import FastAPI

import command_api.main
import query_api.main
from backplane.ports.identifiers import new_id
from backplane.settings import Settings
from backplane.wiring.embedded import completed, owner_database
from backplane.wiring.operations import operator_bus, topics
from command_api.lanes import lanes
from event_schemas.codec import AnyEnvelope, decode
from event_schemas.control_plane import KeyRole
from event_schemas.envelope import PLATFORM
from event_schemas.topics import EVENTS, dead_letters
from tests.e2e.client import Client, eventually
from tests.e2e.conftest import KEYED, Callers
from tests.e2e.owned import Owned, owned
from tests.e2e.running import Up
from tests.e2e.walk import Ask, Ids, Walk, never_was, refusal, uuids

pytestmark = pytest.mark.timeout(240)

ROLES = [role for role in get_args(KeyRole) if role != "platform"]
"""Those that a tenant gives."""

SHARED_KEYS = {
    r"room:\{[a-z0-9-]+\}:.*": "the platform's own provider keys, which every tenant may be served with",
    r"budget:\{parley\}:(epoch|holds|settled|unseen)": "one script counts for all; what stands in them names a tenant",
}
"""Keys in Redis whose names hold no tenant, and why."""

SHARED_CHANNELS = {
    "signals:limits:changed": "tells every process a tenant's id",
    "signals:generations:ended": "wakes workers; tells a conversation's id, and only services listen",
    "signals:generations:cancel": "wakes workers; tells a generation's id",
    "signals:provider_keys:changed": "wakes workers; tells a pool's name",
    "signals:personas:changed": "tells every process a tenant's id",
    "signals:searches:asked": "asks the ingest service, with a tenant's id and its question; only services listen",
    "signals:embeddings:asked": "asks the ingest service, with a tenant's id and its texts; only services listen",
    "signals:keys:revoked": "tells every process the public part of a key",
}
"""Channels in Redis whose names hold no tenant, and why."""


async def state(owner: Owned) -> list[object]:
    """All of a tenant that its API shows, but for who read its record."""
    paths = (
        "conversations",
        "conversations/{conversation_id}",
        "generations/{generation_id}",
        "usage",
        "batches",
        "provider-keys",
        "api-keys",
        "users",
        "webhooks",
        "chat-tools",
        "limits",
        "personas",
        "personas/{persona}/versions/1",
        "sites",
        "fetching",
    )
    shown: list[object] = [await owner.admin.get(f"/v1/{path.format(**owner.ids)}") for path in paths]
    for answer in shown:
        assert isinstance(answer, dict)
        answer.pop("to", None)
        answer.pop("from", None)
        for hook in answer.get("webhooks", ()):
            hook.pop("told_to")  # moves with the record
    record = [one for one in await owner.admin.events() if one["type"] != "audit.read.v1"]
    return [*shown, record]


async def test_no_operation_tells_or_changes_anything_of_another_tenant(callers: Callers) -> None:
    theirs, mine = await owned(callers), await owned(callers)
    callers_of_mine = {role: await callers.caller(mine.tenant_id, role, role) for role in ROLES}
    document = await mine.admin.get("/openapi.json")
    walk = Walk(document, mine.ids)
    before = await state(theirs)
    wrong: list[str] = []
    unknown = never_was(theirs.ids)
    for foreign, never in zip(walk.asks(theirs.ids), walk.asks(unknown), strict=True):
        for role, caller in callers_of_mine.items():
            wrong += [f"{foreign}, as {role}: {what}" for what in await _wrong(caller, foreign, never, theirs)]
    assert wrong == [], "\n".join(wrong)
    assert await state(theirs) == before
    asked = {ask.operation for ask in walk.asks(theirs.ids)}
    assert asked == set(walk.operations())
    assert sum(bool(ask.names) for ask in walk.asks(theirs.ids)) > 15
    # It would notice: what one's own admin is told is all that nobody else may be.
    own, never = (next(ask for ask in walk.asks(ids) if "generation_id" in ask.names) for ids in (theirs.ids, unknown))
    assert len(await _wrong(theirs.admin, own, never, theirs)) == 3


async def _wrong(caller: Client, foreign: Ask, never: Ask, theirs: Owned) -> list[str]:
    answer = await foreign.by(caller)
    found = []
    if seen := theirs.seen_in(_shown(answer)):
        found.append(f"shows {sorted(seen)}")
    if answer.status_code >= 500:
        found.append(f"answers {answer.status_code} {answer.text}")
    # What asks by a signature of its own is told that it has none, whatever tool it names.
    by_signature = " /chat-tools/{chat_tool_id}/" in foreign.operation
    if foreign.names and not foreign.query and answer.status_code not in ((401,) if by_signature else (403, 404)):
        found.append(f"answers {answer.status_code} {answer.text}, neither 404 nor 403")
    # What is somebody else's and what never was look the same, also to one who may not ask at all.
    if foreign.names and (told := refusal(await never.by(caller))) != refusal(answer):
        found.append(f"answers {refusal(answer)}, and {told} for what never was")
    return found


def _shown(answer: httpx.Response) -> str:
    """All that it says, but for the lines of the record that tell what this very walk asked for."""
    content_type = answer.headers.get("content-type", "")
    if answer.is_success and "ndjson" in content_type:
        return "".join(line for line in answer.text.splitlines() if '"type":"audit.read.v1"' not in line)
    if not answer.is_success or not answer.text or "json" not in content_type:
        return answer.text
    parsed = answer.json()
    if isinstance(parsed, dict) and "events" in parsed:
        parsed["events"] = [line for line in parsed["events"] if line["event"]["type"] != "audit.read.v1"]
    return json.dumps(parsed)


def test_the_services_alone_have_no_operation_that_is_not_walked(parley: Up) -> None:
    walked = Walk(parley.get("/openapi.json").json(), {}).operations()
    alone = FastAPI()
    for router in (*command_api.main.ROUTERS, *query_api.main.ROUTERS):
        alone.include_router(router)
    assert set(Walk(alone.openapi(), {}).operations()) <= set(walked)


async def test_cursors_of_another_tenant_lead_nowhere_else(callers: Callers) -> None:
    theirs, mine = await owned(callers), await owned(callers)
    for owner in (theirs, mine):
        await owner.member.ended((await owner.member.submit("another one"))["generation_id"])
    cursor = (await theirs.admin.get("/v1/conversations", limit=1))["next_cursor"]
    for parameters in ({"cursor": cursor}, {"cursor": cursor, "search": theirs.word}):
        assert not theirs.seen_in(json.dumps(await mine.admin.get("/v1/conversations", **parameters)))
    told = await theirs.member.follow(theirs.ids["generation_id"])
    assert told.cursor is not None
    for by_header in (True, False):
        stream = mine.member.stream(mine.ids["generation_id"], told.cursor, by_header=by_header)
        assert not theirs.seen_in("".join([event.data async for event in stream]))
    path = f"/v1/generations/{theirs.ids['generation_id']}/stream"
    for headers in ({}, {"Last-Event-ID": told.cursor}, {"Last-Event-ID": "1-0"}):
        assert (await mine.admin.http.get(path, headers=headers)).status_code == 404


async def test_an_idempotency_key_of_another_tenant_is_not_taken(callers: Callers) -> None:
    theirs, mine = await owned(callers), await owned(callers)
    key = f"key {new_id()}"
    first = (await theirs.member.post_prompt(theirs.word, idempotency_key=key)).json()
    other = await mine.member.post_prompt("something else", idempotency_key=key)
    assert other.status_code == 202, other.text
    assert not uuids(json.dumps(first)) & uuids(other.text)
    assert (await mine.member.post_prompt(theirs.word, idempotency_key=key)).status_code == 409
    assert (await theirs.member.post_prompt(theirs.word, idempotency_key=key)).json() == first


async def test_a_provider_key_may_be_two_tenants_without_their_hearing_of_it(callers: Callers) -> None:
    theirs, mine = await owned(callers), await owned(callers)
    added = await mine.admin.http.post("/v1/provider-keys", json={"pool": KEYED, "key": f"sk-{theirs.word}"})
    assert added.status_code == 201, added.text
    assert not theirs.seen_in(added.text)
    assert (await mine.admin.http.delete(f"/v1/provider-keys/{added.json()['id']}")).status_code == 204
    kept = (await theirs.admin.get("/v1/provider-keys"))["provider_keys"]
    assert [one["id"] for one in kept] == [theirs.ids["provider_key_id"]]


def settings_of(parley: Up) -> Settings:
    return Settings.model_validate({"data_dir": parley.data, "pools": json.loads(parley.environment["PARLEY_POOLS"])})


async def tenants_of(settings: Settings) -> set[str]:
    database = owner_database(settings)
    try:
        rows = await database.at_once("SELECT tenant_id FROM control.tenants")
    finally:
        await database.close()
    return {str(row["tenant_id"]) for row in rows}


async def test_every_key_and_channel_in_redis_names_its_tenant(parley: Up, callers: Callers) -> None:
    theirs, mine = await owned(callers), await owned(callers)
    settings = completed(settings_of(parley))
    assert settings.redis.url is not None
    tenants = await tenants_of(settings)
    slow = await mine.member.submit("x", script={"count": 400, "delay_s": 0.05})
    following = asyncio.create_task(mine.member.follow(slow["generation_id"]))
    async with redis.asyncio.Redis.from_url(settings.redis.url.get_secret_value(), decode_responses=True) as client:
        channel = f"tokens:{{{mine.tenant_id}:{slow['generation_id']}}}"

        async def channels() -> set[str]:
            return {str(name) for name in await client.pubsub_channels()}

        heard = await eventually(channels, lambda names: channel in names)
        keys = {str(name) async for name in client.scan_iter(count=1000)}
        streams = {name: str(await client.xrange(name)) for name in keys if name.startswith("tokens:")}
    await mine.member.cancel(slow["generation_id"])
    await following
    nameless = {name for name in keys | heard if not uuids(name) & tenants}
    unknown = {
        name
        for name in nameless
        if name not in SHARED_CHANNELS and not any(re.fullmatch(pattern, name) for pattern in SHARED_KEYS)
    }
    assert unknown == set(), "put the tenant into these names, or say why not: in SHARED_KEYS or SHARED_CHANNELS"
    for owner in (theirs, mine):
        assert f"tokens:{{{owner.tenant_id}:{owner.ids['generation_id']}}}" in streams
    for name, held in streams.items():
        assert str(mine.tenant_id) in name or not mine.seen_in(held)
        assert str(theirs.tenant_id) in name or not theirs.seen_in(held)


async def test_every_message_on_the_bus_says_whose_it_is_and_lies_where_its_tenants_do(
    parley: Up, callers: Callers
) -> None:
    theirs, mine = await owned(callers), await owned(callers)
    await theirs.member.cancel(
        (await theirs.member.submit("x", script={"count": 400, "delay_s": 0.05}))["generation_id"]
    )
    settings = settings_of(parley)
    tenants = await tenants_of(settings) | {str(PLATFORM)}
    places: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    owners: defaultdict[str, set[str]] = defaultdict(set)
    async with operator_bus(settings) as bus:
        for topic in topics(settings):
            partitions = len(await bus.heads(topic))
            for partition in range(partitions):
                for message in await bus.read(topic, partition, after=None, limit=100_000):
                    envelope = decode(message.payload)
                    tenant_id = str(envelope.tenantid)
                    assert tenant_id in tenants
                    assert message.key == tenant_id, (topic, envelope.type)
                    places[topic, tenant_id].add(partition)
                    for each in _subjects(envelope):
                        owners[each].add(tenant_id)
                    for one in (mine, theirs):
                        if tenant_id != str(one.tenant_id):
                            assert not one.seen_in(message.payload.decode()), (topic, envelope.type)
            for (of_topic, tenant_id), found in places.items():
                if of_topic == topic and topic.startswith("commands-"):
                    assert found <= set(lanes(UUID(tenant_id), partitions))
        for topic in topics(settings):
            assert await bus.read(dead_letters(topic), 0, after=None, limit=10) == []
    assert {each: found for each, found in owners.items() if len(found) > 1} == {}
    assert {place: found for place, found in places.items() if place[0] == EVENTS and len(found) > 1} == {}
    assert {str(mine.tenant_id), str(theirs.tenant_id)} <= {tenant_id for _, tenant_id in places}


def _subjects(envelope: AnyEnvelope) -> set[str]:
    about = {str(value) for name, value in envelope.data if name in ("generation_id", "conversation_id")}
    return about | {str(envelope.id)}


def test_the_walk_takes_every_id_and_knows_what_it_lacks() -> None:
    document = {
        "paths": {
            "/things/{thing_id}": {
                "put": {
                    "parameters": [{"in": "path", "name": "thing_id"}, {"in": "query", "name": "limit"}],
                    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/Thing"}}}},
                }
            }
        },
        "Thing": {
            "required": ["name"],
            "properties": {"name": {"examples": ["n"]}, "owner": {"anyOf": [{"format": "uuid"}]}},
        },
    }
    mine: Ids = {"thing_id": "mine", "owner": "me"}
    asks = list(Walk(document, mine).asks({"thing_id": "theirs", "owner": "them"}))
    assert [(ask.path, ask.names, ask.body) for ask in asks] == [
        ("/things/theirs", ("thing_id",), {"name": "n"}),
        ("/things/mine", ("owner",), {"name": "n", "owner": "them"}),
    ]
    with pytest.raises(AssertionError, match="takes 'owner'"):
        list(Walk(document, mine).asks({"thing_id": "theirs"}))
