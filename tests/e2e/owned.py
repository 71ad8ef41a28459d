"""A tenant that has one of everything."""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.identifiers import new_id
from event_schemas.topics import EVENTS, dead_letters
from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import KEYED, Callers
from tests.e2e.walk import uuids


@dataclass(frozen=True)
class Owned:
    """A tenant with one of everything, and what nobody else may ever see."""

    tenant_id: UUID
    admin: Client
    member: Client
    word: str
    ids: dict[str, str]
    """Names of parameters and fields → what they mean of this tenant's."""
    hidden: frozenset[str]
    """Its ids, and the word that all of its texts have in them."""

    def seen_in(self, text: str) -> set[str]:
        return {each for each in self.hidden if each in text}


TOLD = {
    "batch.completed.v1",
    "chat_tool.added.v1",
    "collection.created.v1",
    "conversation.renamed.v2",
    "document.ingested.v1",
    "generation.completed.v3",
    "key.issued.v2",
    "persona.saved.v1",
    "provider_key.added.v1",
    "session.begun.v1",
    "site.added.v1",
    "user.invited.v2",
    "webhook.added.v1",
}
"""What the record tells of all that ``owned`` makes, in the end."""


async def owned(callers: Callers) -> Owned:
    """Make a tenant that has one of everything. What a new noun adds is made here, and named in ``ids``."""
    tenant_id, word = await callers.tenant(), f"canary{new_id().hex}"
    admin, member = await callers.caller(tenant_id, "admin"), await callers.caller(tenant_id, "member", f"ada {word}")
    accepted = await member.submit(f"tell me of the {word}", metadata={"note": word})
    await member.ended(accepted["generation_id"])
    conversation = f"/v1/conversations/{accepted['conversation_id']}"
    assert (await member.http.patch(conversation, json={"title": f"About the {word}"})).is_success
    added = await admin.http.post("/v1/provider-keys", json={"pool": KEYED, "key": f"sk-{word}", "name": word})
    assert added.status_code == 201, added.text
    key = await admin.http.post("/v1/api-keys", json={"name": word})
    with_key = await callers.with_key(key.json()["key"])
    session = await with_key.http.post("/v1/session/from-key")
    hook = await admin.http.post(
        "/v1/webhooks", json={"url": f"http://127.0.0.1:9/{word}", "event_types": ["key.revoked"]}
    )
    site = await admin.http.post(
        "/v1/sites", json={"name": word, "domain": f"{word}.example", "urls": [f"http://127.0.0.1:9/{word}"]}
    )
    chat_tool = await admin.http.post(
        "/v1/chat-tools",
        json={"kind": "slack", "name": word, "signing_secret": f"signed {word}", "bot_token": f"xoxb-{word}"},
    )
    assert {201} == {one.status_code for one in (key, session, hook, site, chat_tool)}, chat_tool.text
    persona = f"clerk-{new_id()}"
    saved = await admin.http.post("/v1/personas", json={"name": persona, "definition": {"system": f"Know the {word}."}})
    assert saved.status_code == 201, saved.text
    batch = await member.submit_batch([word], metadata={"note": word})
    await eventually(lambda: member.get(f"/v1/batches/{batch['id']}"), lambda found: found["ended_at"])
    collection = await admin.http.post("/v1/collections", json={"name": word, "description": f"of the {word}"})
    assert collection.status_code == 201, collection.text
    of_it = f"/v1/collections/{collection.json()['id']}/documents"
    document = await admin.http.post(of_it, json={"name": word, "text": f"About the {word}."})
    assert document.status_code == 202, document.text
    # All of it: what compares the record before and after would else find the rest of this.
    record = await eventually(admin.events, lambda told: _types(told) >= TOLD)
    prompt = next(one for one in record if one["type"].startswith("prompt.submit."))
    ids = {
        "tenant_id": str(tenant_id),
        "generation_id": accepted["generation_id"],
        "conversation_id": accepted["conversation_id"],
        "conversation_ids": accepted["conversation_id"],
        "Parley-Conversation-Id": accepted["conversation_id"],
        "conversation": f"conv_{accepted['conversation_id']}",
        "response_id": f"resp_{accepted['generation_id']}",
        "previous_response_id": f"resp_{accepted['generation_id']}",
        "session": accepted["conversation_id"],
        "chat_id": accepted["conversation_id"],
        "gpt_session_id": accepted["conversation_id"],
        "provider_key_name": word,
        "npc_id": persona,
        "user_key": key.json()["key"],
        "model_id": "no-model-at-all",
        "message_id": accepted["message_id"],
        "parent_message_id": accepted["message_id"],
        "provider_key_id": added.json()["id"],
        "user_id": prompt["data"]["user_id"],
        "key_id": prompt["data"]["key_id"],
        "correlation_id": prompt["correlationid"],
        "subject": prompt["subject"],
        "actor": prompt["actor"],
        "api_key_id": key.json()["id"],
        "session_id": session.json()["id"],
        "webhook_id": hook.json()["id"],
        "chat_tool_id": chat_tool.json()["id"],
        "persona": persona,
        "version": "7",  # there is none, whosesoever the persona
        "site_id": site.json()["id"],
        "batch_id": batch["id"],
        "collection_id": collection.json()["id"],
        "document_id": document.json()["id"],
        "provider": "no-such-provider",
        "dimension": "user",
        "dead_letter_id": f"{dead_letters(EVENTS)}:0:0:1",
        "search": word,
    }
    return Owned(tenant_id, admin, member, word, ids, frozenset({*uuids(json.dumps([record, ids])), word}))


def _types(record: list[Json]) -> set[str]:
    return {one["type"] for one in record}
