"""The endpoints of a tenant's webhooks."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from backplane.ports.database import Row
from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses
from command_api.admission import Refused
from command_api.message_body import Text
from command_api.ports import ports_of
from command_api.webhooks import MOST_CHARACTERS, EventType, NoSuchWebhook

router = APIRouter(prefix="/v1", tags=["webhooks"])

Admin = Annotated[Principal, Depends(requires("webhooks.manage"))]

WebhookId = Annotated[UUID, Path(description="the webhook, as the 201 named it")]

_URL = "https://hooks.example.com/parley"
_TYPES = ["limit.nearly_reached", "generation.failed"]


class WebhookBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: Text = Field(
        min_length=1,
        max_length=MOST_CHARACTERS,
        description="where deliveries are posted: `https://` and a public address; its query is never shown again",
        examples=[_URL],
    )
    event_types: list[EventType] = Field(
        min_length=1, max_length=100, description="what it is told of; events without their versions", examples=[_TYPES]
    )


class WebhookCreated(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(description="names it from now on", examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d14"])
    url: str = Field(description="without its query", examples=[_URL])
    event_types: list[str] = Field(description="what it is told of", examples=[_TYPES])
    secret: str = Field(
        description="what deliveries are signed with; it is encrypted and never shown again",
        examples=["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"],
    )
    added_at: datetime = Field(description="when it was added", examples=["2026-03-01T12:00:00.123456Z"])


class WebhookView(BaseModel):
    id: UUID = Field(description="the webhook", examples=["01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d14"])
    url: str = Field(description="without its query", examples=[_URL])
    event_types: list[str] = Field(description="what it is told of", examples=[_TYPES])
    status: Literal["active", "failing", "disabled"] = Field(
        description="`failing`: the next event is tried again, and later ones wait for it; `disabled`: for good",
        examples=["failing"],
    )
    told_to: int = Field(description="sequence in the event log up to which it was told", examples=[1204])
    failures: int = Field(description="times that the next delivery failed", examples=[3])
    last_failure: str | None = Field(description="why, the last time", examples=["it answered 500"])
    next_try_at: datetime | None = Field(
        description="when it is tried again, where it failed", examples=["2026-03-01T12:35:00.123456Z"]
    )
    added_at: datetime = Field(description="when it was added", examples=["2026-03-01T12:00:00.123456Z"])
    disabled_at: datetime | None = Field(description="when it was disabled", examples=[None])
    disabled_because: Literal["gone", "gave_up"] | None = Field(
        description="`gone`: it answered 410; `gave_up`: it failed for three days", examples=[None]
    )


class WebhookList(BaseModel):
    webhooks: list[WebhookView] = Field(description="the newest first")


class WebhookTested(BaseModel):
    delivered: bool = Field(description="whether it answered with a 2xx", examples=[True])
    status: int | None = Field(description="the HTTP status, where it answered", examples=[204])
    failure: str | None = Field(description="why it was not delivered", examples=[None])
    duration_ms: int = Field(description="how long it took", examples=[42])


@router.post(
    "/webhooks",
    status_code=201,
    response_model=WebhookCreated,
    summary="Add a webhook",
    responses=responses(400, 401, 403, 413, 415, 422, 503),
)
async def add_webhook(request: Request, principal: Admin, body: WebhookBody) -> WebhookCreated:
    """From now on the events of the chosen types are posted to the URL: in order, signed, and tried again."""
    ports = ports_of(request)
    try:
        added = await ports.webhooks.add(principal.tenant_id, body.url, body.event_types, actor=principal.actor)
    except Refused as refused:
        errors = [{"field": refused.field, "message": str(refused)}]
        raise Problem(422, refused.type, "The webhook is refused", str(refused), errors=errors) from None
    ports.relay.wake()
    return WebhookCreated.model_validate(added)


@router.get(
    "/webhooks",
    response_model=WebhookList,
    summary="Webhooks, and how their deliveries go",
    responses=responses(401, 403, 422, 503),
)
async def list_webhooks(request: Request, principal: Admin) -> WebhookList:
    rows = await ports_of(request).webhooks.all(principal.tenant_id)
    return WebhookList(webhooks=[WebhookView(**row, status=_status(row)) for row in rows])


@router.delete(
    "/webhooks/{webhook_id}",
    status_code=204,
    summary="Remove a webhook",
    responses=responses(401, 403, 404, 422, 503),
)
async def remove_webhook(request: Request, principal: Admin, webhook_id: WebhookId) -> None:
    """Nothing is posted to it any more; what is on its way may still arrive."""
    ports = ports_of(request)
    try:
        await ports.webhooks.remove(principal.tenant_id, webhook_id, actor=principal.actor)
    except NoSuchWebhook:
        raise not_found("webhook") from None
    ports.relay.wake()


@router.post(
    "/webhooks/{webhook_id}/test",
    response_model=WebhookTested,
    summary="Send a webhook a test event",
    responses=responses(401, 403, 404, 422, 503),
)
async def try_webhook(request: Request, principal: Admin, webhook_id: WebhookId) -> WebhookTested:
    """One `webhook.test.v1` is posted at once, once, signed as any other; it is in no log."""
    began = time.monotonic()
    try:
        answer = await ports_of(request).deliveries.test(principal.tenant_id, webhook_id)
    except NoSuchWebhook:
        raise not_found("webhook") from None
    return WebhookTested(
        delivered=answer.failure is None,
        status=answer.status,
        failure=answer.failure,
        duration_ms=int((time.monotonic() - began) * 1000),
    )


def _status(row: Row) -> Literal["active", "failing", "disabled"]:
    if row["disabled_at"] is not None:
        return "disabled"
    return "failing" if row["failures"] else "active"
