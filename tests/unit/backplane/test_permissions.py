"""Every route × every role. A route that is new has to be written down here, with who may call it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute

import command_api.main
import query_api.main
from backplane.security.permissions import GRANTS, PERMISSIONS, Permission, lesser
from backplane.settings.doors import DoorSettings
from backplane.web.authentication import requires
from event_schemas.control_plane import KeyRole
from gateway import doors

ROLES: tuple[KeyRole, ...] = get_args(KeyRole)

WORK = {"owner", "admin", "member"}
ADMINS = {"owner", "admin"}
MANAGERS = ADMINS | {"platform"}
READERS = MANAGERS | {"auditor"}
EVERYBODY: set[str] = {*ROLES}
NO_CREDENTIALS = None

MAY_CALL: dict[str, set[str] | None] = {
    "POST /v1/prompts": WORK,
    "POST /v1/generations/{generation_id}/cancel": WORK,
    "GET /v1/generations/{generation_id}": WORK,
    "GET /v1/generations/{generation_id}/stream": WORK,
    "GET /v1/conversations": WORK,
    "POST /v1/conversations": WORK,
    "GET /v1/conversations/{conversation_id}": WORK,
    "PATCH /v1/conversations/{conversation_id}": WORK,
    "DELETE /v1/conversations/{conversation_id}": WORK,
    "POST /v1/conversations/{conversation_id}/fork": WORK,
    "POST /v1/conversations/{conversation_id}/suspend": WORK,
    "POST /v1/conversations/{conversation_id}/resume": WORK,
    "POST /v1/conversations/{conversation_id}/end": WORK,
    "POST /v1/conversations/resume": WORK,
    "POST /v1/batches": WORK,
    "GET /v1/batches": WORK,
    "GET /v1/batches/{batch_id}": WORK,
    "GET /v1/batches/{batch_id}/results": WORK,
    "GET /v1/batches/{batch_id}/errors": WORK,
    "POST /v1/batches/{batch_id}/cancel": WORK,
    "DELETE /v1/batches/{batch_id}": WORK,
    "GET /v1/usage": WORK,
    "GET /v1/usage/attempts": WORK,
    "GET /v1/events": READERS,
    "GET /v1/provider-keys": MANAGERS,
    "POST /v1/provider-keys": MANAGERS,
    "DELETE /v1/provider-keys/{provider_key_id}": MANAGERS,
    "POST /v1/conversations/{conversation_id}/erase": WORK,
    "POST /v1/users/{user_id}/erase": ADMINS,
    "PUT /v1/content-policy": ADMINS,
    "GET /v1/audit/verify": READERS,
    "GET /v1/audit/checkpoints": READERS,
    "GET /v1/audit/export": READERS,
    "GET /v1/audit/trace/{correlation_id}": READERS,
    "GET /v1/limits": MANAGERS,
    "PUT /v1/limits/{dimension}/{subject:path}": MANAGERS,
    "POST /v1/webhooks": MANAGERS,
    "GET /v1/webhooks": MANAGERS,
    "DELETE /v1/webhooks/{webhook_id}": MANAGERS,
    "POST /v1/webhooks/{webhook_id}/test": MANAGERS,
    "POST /v1/chat-tools": ADMINS,
    "GET /v1/chat-tools": ADMINS,
    "PUT /v1/chat-tools/{chat_tool_id}/secrets": ADMINS,
    "DELETE /v1/chat-tools/{chat_tool_id}": ADMINS,
    "GET /v1/fetching": MANAGERS,
    "PUT /v1/fetching": MANAGERS,
    "GET /v1/sites": MANAGERS,
    "POST /v1/sites": MANAGERS,
    "PUT /v1/sites/{site_id}": MANAGERS,
    "DELETE /v1/sites/{site_id}": MANAGERS,
    "GET /v1/api-keys": WORK | MANAGERS,
    "POST /v1/api-keys": WORK | MANAGERS,
    "POST /v1/api-keys/{api_key_id}/rotate": WORK | MANAGERS,
    "DELETE /v1/api-keys/{api_key_id}": WORK | MANAGERS,
    "GET /v1/users": MANAGERS,
    "POST /v1/users": MANAGERS,
    "PATCH /v1/users/{user_id}": MANAGERS,
    "DELETE /v1/users/{user_id}": MANAGERS,
    "POST /v1/users/{user_id}/invitation": MANAGERS,
    "POST /v1/users/{user_id}/suspend": MANAGERS,
    "POST /v1/users/{user_id}/resume": MANAGERS,
    "POST /v1/invitations/accept": NO_CREDENTIALS,
    "POST /v1/session": NO_CREDENTIALS,
    "GET /v1/oidc": NO_CREDENTIALS,
    "GET /v1/oidc/{provider}/sign-in": NO_CREDENTIALS,
    "GET /v1/oidc/{provider}/callback": NO_CREDENTIALS,
    "POST /v1/session/from-key": EVERYBODY,
    "GET /v1/session": EVERYBODY,
    "DELETE /v1/session": EVERYBODY,
    "GET /v1/sessions": EVERYBODY,
    "DELETE /v1/sessions/{session_id}": EVERYBODY,
    "GET /v1/tenants": {"platform"},
    "POST /v1/tenants": {"platform"},
    "POST /v1/tenants/{tenant_id}/owner-key": {"platform"},
    "PATCH /v1/tenants/{tenant_id}/share": {"platform"},
    "POST /v1/tenants/{tenant_id}/suspend": {"platform"},
    "POST /v1/tenants/{tenant_id}/resume": {"platform"},
    "POST /v1/personas": ADMINS,
    "POST /v1/personas/import": ADMINS,
    "POST /v1/personas/preview": ADMINS,
    "POST /v1/personas/{persona}/preview": ADMINS,
    "POST /v1/personas/{persona}/restore": ADMINS,
    "DELETE /v1/personas/{persona}": ADMINS,
    "GET /v1/personas": WORK,
    "GET /v1/personas/{persona}": WORK,
    "GET /v1/personas/{persona}/versions": ADMINS,
    "GET /v1/personas/{persona}/versions/{version}": ADMINS,
    "GET /v1/personas/{persona}/compare": ADMINS,
    "GET /v1/personas/{persona}/export": ADMINS,
    "GET /v1/collections": WORK,
    "POST /v1/collections": ADMINS,
    "GET /v1/collections/{collection_id}": WORK,
    "PATCH /v1/collections/{collection_id}": ADMINS,
    "DELETE /v1/collections/{collection_id}": ADMINS,
    "POST /v1/collections/{collection_id}/reindex": ADMINS,
    "POST /v1/collections/{collection_id}/search": WORK,
    "GET /v1/collections/{collection_id}/documents": WORK,
    "POST /v1/collections/{collection_id}/documents": ADMINS,
    "GET /v1/collections/{collection_id}/documents/{document_id}": WORK,
    "DELETE /v1/collections/{collection_id}/documents/{document_id}": ADMINS,
    "GET /v1/dead-letters": {"platform"},
    "GET /v1/dead-letters/{dead_letter_id}": {"platform"},
    "POST /v1/dead-letters/{dead_letter_id}/replay": {"platform"},
    "DELETE /v1/dead-letters/{dead_letter_id}": {"platform"},
    "POST /chat-tools/{chat_tool_id}/slack": NO_CREDENTIALS,
    "POST /chat-tools/{chat_tool_id}/discord": NO_CREDENTIALS,
    "POST /chat-tools/{chat_tool_id}/teams": NO_CREDENTIALS,
    "POST /v1/chat/completions": WORK,
    "POST /v1/completions": WORK,
    "POST /v1/embeddings": WORK,
    "POST /v1/messages": WORK,
    "POST /v1/messages/count_tokens": WORK,
    "POST /v1/responses": WORK,
    "GET /v1/responses/{response_id}": WORK,
    "DELETE /v1/responses/{response_id}": WORK,
    "POST /v1/responses/{response_id}/cancel": WORK,
    "GET /v1/responses/{response_id}/input_items": WORK,
    "GET /v1/models": WORK,
    "GET /v1/models/{model_id:path}": WORK,
    "SOCKET /gpt-socket/{persona}": WORK,
    "GET /gpt/{persona}": WORK,
    "POST /gpt/{persona}": WORK,
    "POST /toil/{persona}": WORK,
    "GET /describe/{persona}": WORK,
    "GET /platform/stats": WORK,
    "GET /embedding/document": WORK,
    "POST /embedding/document": WORK,
    "GET /embedding/query": WORK,
    "POST /embedding/query": WORK,
    "POST /prompt": WORK,
    "POST /signup/": MANAGERS,
    "POST /chat/": WORK,
    "GET /chat/{user_key}/{chat_id}/history": ADMINS,
    "POST /end_chat_session/": WORK,
    "POST /create_npc/": ADMINS,
    "POST /chat_npc/": WORK,
    "POST /rag/": WORK,
    "POST /add_to_rag_db/": ADMINS,
    "GET /reindex/": ADMINS,
    "POST /v1/auth/signup": MANAGERS,
    "POST /v1/auth/login": NO_CREDENTIALS,
    "GET /v1/auth/me": WORK,
    "POST /v1/auth/me": WORK,
    "POST /v1/auth/apikeys": MANAGERS,
    "GET /v1/auth/apikeys": MANAGERS,
    "DELETE /v1/auth/apikeys/{provider_key_name}": MANAGERS,
    "POST /v1/gpt/sessions": WORK,
    "GET /v1/gpt/sessions": WORK,
    "GET /v1/gpt/sessions/{gpt_session_id}": WORK,
    "PUT /v1/gpt/sessions/{gpt_session_id}": WORK,
    "DELETE /v1/gpt/sessions/{gpt_session_id}": WORK,
    "GET /v1/gpt/sessions/{gpt_session_id}/messages": WORK,
    "POST /v1/gpt/sessions/{gpt_session_id}/messages": WORK,
}


def routes() -> Iterator[tuple[str, Permission | None]]:
    """Each route and the permission that it asks for."""
    routers = [door.router for door in doors.of(DoorSettings())]
    for router in (*command_api.main.ROUTERS, *query_api.main.ROUTERS, *routers):
        for route in flattened(router):
            asked = [one.call.permission for one in route.dependant.dependencies if isinstance(one.call, requires)]
            assert len(asked) <= 1, route.path
            for method in ("SOCKET",) if isinstance(route, APIWebSocketRoute) else route.methods or ():
                yield f"{method} {route.path}", asked[0] if asked else None


def flattened(router: APIRouter) -> Iterator[APIRoute | APIWebSocketRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute | APIWebSocketRoute):
            yield route
        else:
            yield from flattened(route.original_router)  # type: ignore[attr-defined]


def test_every_route_is_for_who_is_written_down_here() -> None:
    found = {
        name: None if permission is None else {role for role in ROLES if permission in PERMISSIONS[role]}
        for name, permission in routes()
    }
    assert found == MAY_CALL


def test_the_auditor_reads_the_log_and_nothing_else() -> None:
    its = {name for name, permission in routes() if permission is not None and permission in PERMISSIONS["auditor"]}
    assert {name for name in its if "/session" not in name} == {
        "GET /v1/events",
        "GET /v1/audit/verify",
        "GET /v1/audit/checkpoints",
        "GET /v1/audit/export",
        "GET /v1/audit/trace/{correlation_id}",
    }


def test_only_an_owner_makes_owners_and_nobody_gives_what_they_have_not() -> None:
    assert {role for role in ROLES if "owner" in GRANTS[role]} == {"owner"}
    assert {role for role in ROLES if "platform" in GRANTS[role]} == {"platform"}
    for role in ROLES:
        for given in GRANTS[role]:
            assert PERMISSIONS[given] <= PERMISSIONS[role], (role, given)


@pytest.mark.parametrize(("of_key", "of_user"), list(product(ROLES, ROLES)))
def test_a_users_key_may_what_both_may(of_key: KeyRole, of_user: KeyRole) -> None:
    role = lesser(of_key, of_user)
    assert role == lesser(of_user, of_key)
    if role is None:
        assert {of_key, of_user} == {"member", "auditor"} or "platform" in (of_key, of_user)
    else:
        assert PERMISSIONS[role] == PERMISSIONS[of_key] & PERMISSIONS[of_user]
