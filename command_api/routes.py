"""The command API's endpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses
from command_api import (
    api_key_routes,
    conversation_routes,
    conversations,
    limit_answers,
    oidc_routes,
    people_routes,
    session_routes,
    tenant_routes,
)
from command_api.admission import Refused
from command_api.conversations import ContentNotKept, NoSuch
from command_api.erasure_routes import erasures
from command_api.idempotency import MOST_CHARACTERS
from command_api.message_body import Text
from command_api.ports import ConversationId, GenerationId, Prompter, ports_of, settle, settle_erased
from command_api.prompt import Accepted, PromptBody
from command_api.provider_keys import AddedBefore, NoSuchProviderKey
from command_api.submission import ProjectionsLag
from command_api.submitting import RecordsRefusals, lag, refusal, submitted

Admin = Annotated[Principal, Depends(requires("provider_keys.manage"))]

# Prefixes stand here and not where routers are put together: a route's own path is its label in the metrics.
prompts = APIRouter(prefix="/v1", tags=["commands"], route_class=RecordsRefusals)
others = APIRouter(prefix="/v1", tags=["commands"])


@prompts.post(
    "/prompts",
    status_code=202,
    response_model=Accepted,
    summary="Submit a prompt",
    responses={
        202: {
            "headers": {
                "Location": {"description": "the generation", "schema": {"type": "string"}},
                **limit_answers.RATE_HEADERS,
            }
        },
        **responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    },
)
async def submit_prompt(
    request: Request,
    response: Response,
    principal: Prompter,
    body: PromptBody,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=MOST_CHARACTERS,
            description="any string of yours; repeating a request with it never makes a second prompt",
        ),
    ] = None,
    traceparent: Annotated[str | None, Header(max_length=55, description="W3C trace context")] = None,
) -> Accepted:
    """Once this answers 202 the prompt survives any crash, and ends in exactly one of completed, failed, cancelled."""
    accepted, standings = await submitted(request, principal, body, idempotency_key, traceparent)
    response.headers["Location"] = accepted.generation_url
    response.headers.update(limit_answers.headers(standings))
    return accepted


class CancelAccepted(BaseModel):
    generation_id: UUID = Field(
        description="the generation that will stop, unless it ends first",
        examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"],
    )


@others.post(
    "/generations/{generation_id}/cancel",
    status_code=202,
    response_model=CancelAccepted,
    summary="Stop a generation",
    responses=responses(401, 403, 404, 422, 503),
)
async def cancel_generation(request: Request, principal: Prompter, generation_id: GenerationId) -> CancelAccepted:
    """Disconnecting from a stream does not stop a generation; this does. What is already said stays."""
    try:
        await ports_of(request).submission.cancel(principal, generation_id)
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    except ProjectionsLag:
        raise lag() from None
    return CancelAccepted(generation_id=generation_id)


class ConversationChanges(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Text = Field(min_length=1, max_length=200, description="the new title", examples=["The colour of the sky"])


class Renamed(BaseModel):
    id: UUID = Field(description="the conversation", examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10"])
    title: str = Field(description="its title from now on", examples=["The colour of the sky"])


@others.patch(
    "/conversations/{conversation_id}",
    response_model=Renamed,
    summary="Rename a conversation",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 503),
)
async def rename_conversation(
    request: Request, principal: Prompter, conversation_id: ConversationId, body: ConversationChanges
) -> Renamed:
    try:
        ports = ports_of(request)
        event_id = await conversations.rename(
            ports.database, ports.content_keys, principal, conversation_id, body.title
        )
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    except ContentNotKept:
        raise Problem(
            409, "content-not-kept", "Content is not kept", "This tenant keeps no content, so no titles either."
        ) from None
    await settle(request, principal, event_id)
    return Renamed(id=conversation_id, title=body.title)


@others.delete(
    "/conversations/{conversation_id}",
    status_code=204,
    summary="Delete a conversation",
    responses=responses(401, 403, 404, 422, 503),
)
async def delete_conversation(request: Request, principal: Prompter, conversation_id: ConversationId) -> None:
    """Removes it and what was written in it from every list and view, and cancels what still runs in it."""
    ports = ports_of(request)
    try:
        event_id, cancels = await conversations.delete(ports.database, principal, conversation_id)
    except NoSuch as missing:
        raise not_found(missing.args[0]) from None
    await settle_erased(request, principal, event_id, [conversation_id], cancels)


class ProviderKeyBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pool: Text = Field(min_length=1, max_length=40, description="the pool that it is for", examples=["cloud"])
    key: SecretStr = Field(
        description="the key as the provider gave it; it is encrypted and never shown again", examples=["sk-proj-…"]
    )
    name: Text = Field("", max_length=200, description="a label for people", examples=["our account"])


class ProviderKeyAccepted(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="names it from now on", examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d13"])
    pool: str = Field(description="the pool that it is for", examples=["cloud"])
    name: str = Field(description="a label for people", examples=["our account"])
    fingerprint: str = Field(
        description="a hash of the key, which tells nothing of it; `provider_key.set_aside` names it by this",
        examples=["0a1b2c3d4e5f"],
    )
    added_at: datetime = Field(description="when it was added", examples=["2026-03-01T12:00:00.123456Z"])


@others.post(
    "/provider-keys",
    status_code=201,
    response_model=ProviderKeyAccepted,
    summary="Add a provider key of your own",
    responses=responses(400, 401, 403, 409, 413, 415, 422, 503),
)
async def add_provider_key(request: Request, principal: Admin, body: ProviderKeyBody) -> ProviderKeyAccepted:
    """Within 5 s the tenant's prompts in this pool are asked with its own keys, and with no other's."""
    ports = ports_of(request)
    try:
        added = await ports.provider_keys.add(
            principal.tenant_id, body.pool, body.key.get_secret_value(), body.name, actor=principal.actor
        )
    except Refused as refused:
        raise refusal("The key is refused", refused) from None
    except AddedBefore as before:
        raise Problem(
            409,
            "provider-key-exists",
            "The key is there already",
            f"{str(before).capitalize()}.",
            id=str(before.key_id),
        ) from None
    ports.relay.wake()
    return ProviderKeyAccepted.model_validate(added)


@others.delete(
    "/provider-keys/{provider_key_id}",
    status_code=204,
    summary="Retire a provider key of your own",
    responses=responses(401, 403, 404, 422, 503),
)
async def retire_provider_key(
    request: Request,
    principal: Admin,
    provider_key_id: Annotated[UUID, Path(description="the key, as the 201 named it")],
) -> None:
    """Within 5 s nothing new is asked with it; what runs ends. After a tenant's last one, the platform's are used."""
    ports = ports_of(request)
    try:
        await ports.provider_keys.retire(principal.tenant_id, provider_key_id, actor=principal.actor)
    except NoSuchProviderKey:
        raise not_found("provider key") from None
    ports.relay.wake()


router = APIRouter()
router.include_router(prompts)
router.include_router(others)
router.include_router(erasures)
for noun in (conversation_routes, session_routes, oidc_routes, people_routes, api_key_routes, tenant_routes):
    router.include_router(noun.router)
