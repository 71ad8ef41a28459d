"""Dead letters over HTTP, for the platform's admins."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, Field

from backplane.security.principal import Principal
from backplane.web.authentication import requires
from backplane.web.problems import Problem, not_found, responses, unavailable
from command_api.dead_letters import CannotReplay, DeadLetter, HeldElsewhere, NoSuchLetter, without_content
from command_api.ports import ports_of
from event_schemas.codec import encode

router = APIRouter(prefix="/v1/dead-letters", tags=["platform"])

Platform = Annotated[Principal, Depends(requires("dead_letters.manage"))]
DeadLetterId = Annotated[str, Path(max_length=300, description="the dead letter, as the list names it")]

_ID = "commands-local-dlq:0:0:42"
_SUBJECT = "generation:01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"


class DeadLetterListed(BaseModel):
    id: str = Field(description="stays the same until it is discarded or replayed", examples=[_ID])
    reason: str = Field(description="why it was set aside", examples=["attempts_exhausted"])
    topic: str = Field(description="where it was published at first", examples=["commands-local"])
    bytes: int = Field(description="how large it is", examples=[1234])
    tenant_id: UUID | None = Field(
        description="whose it is; null where that cannot be read", examples=["01990f6e-0000-7000-8000-000000000009"]
    )
    type: str | None = Field(description="what it is; null where it cannot be read", examples=["prompt.submit.v3"])
    subject: str | None = Field(description="what it is about; null where it cannot be read", examples=[_SUBJECT])
    time: datetime | None = Field(
        description="when it was written; null where it cannot be read", examples=["2026-03-01T12:00:00.123456Z"]
    )


class DeadLetterShown(DeadLetterListed):
    envelope: dict[str, Any] | None = Field(
        description="all of it but what people and models wrote; null where it cannot be read",
        examples=[
            {"type": "prompt.submit.v3", "subject": _SUBJECT, "data": {"content": "encrypted, commitment 0a1b…"}}
        ],
    )


class DeadLetterList(BaseModel):
    dead_letters: list[DeadLetterListed] = Field(description="all that wait, by id")


class Replayed(BaseModel):
    subject: str = Field(description="what is under way now", examples=[_SUBJECT])


@contextmanager
def _one_of_them() -> Iterator[None]:
    try:
        yield
    except NoSuchLetter:
        raise not_found("dead letter") from None
    except HeldElsewhere:
        raise unavailable("dead letters", "Somebody else is looking at some of the dead letters. Try again.") from None


@router.get(
    "",
    response_model=DeadLetterList,
    summary="Messages that could not be handled",
    responses=responses(401, 403, 422, 503),
)
async def list_dead_letters(request: Request, principal: Platform) -> DeadLetterList:
    """Of all tenants. What another process is looking at in this moment is left out."""
    letters = await ports_of(request).dead_letters.waiting()
    return DeadLetterList(dead_letters=[DeadLetterListed(**_facts(letter)) for letter in letters])


@router.get(
    "/{dead_letter_id}",
    response_model=DeadLetterShown,
    summary="One dead letter",
    responses=responses(401, 403, 404, 422, 503),
)
async def show_dead_letter(request: Request, principal: Platform, dead_letter_id: DeadLetterId) -> DeadLetterShown:
    """What cannot be read is not shown at all, only how large it is."""
    with _one_of_them():
        letter = await ports_of(request).dead_letters.find(dead_letter_id)
    decoded = letter.decoded()
    envelope = None if decoded is None else without_content(json.loads(encode(decoded)))
    return DeadLetterShown(**_facts(letter), envelope=envelope)


@router.post(
    "/{dead_letter_id}/replay",
    response_model=Replayed,
    summary="Publish a dead letter again",
    responses=responses(401, 403, 404, 409, 422, 503),
)
async def replay_dead_letter(request: Request, principal: Platform, dead_letter_id: DeadLetterId) -> Replayed:
    """Where it came from, as it was; a prompt becomes a new generation. After an outage it may be published twice."""
    with _one_of_them():
        try:
            subject = await ports_of(request).dead_letters.replay(dead_letter_id, actor=principal.actor)
        except CannotReplay as error:
            raise Problem(409, "cannot-replay", "The dead letter cannot be replayed", f"{error}.") from None
    return Replayed(subject=subject)


@router.delete(
    "/{dead_letter_id}",
    status_code=204,
    summary="Discard a dead letter",
    responses=responses(401, 403, 404, 422, 503),
)
async def discard_dead_letter(request: Request, principal: Platform, dead_letter_id: DeadLetterId) -> None:
    """It is gone for ever; the platform's log says who did it."""
    with _one_of_them():
        await ports_of(request).dead_letters.discard(dead_letter_id, actor=principal.actor)


def _facts(letter: DeadLetter) -> dict[str, Any]:
    decoded = letter.decoded()
    return {
        "id": letter.id,
        "reason": letter.reason,
        "topic": letter.topic,
        "bytes": len(letter.message.payload),
        "tenant_id": letter.tenant_id,
        "type": decoded and decoded.type,
        "subject": decoded and decoded.subject,
        "time": decoded and decoded.time,
    }
