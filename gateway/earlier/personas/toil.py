"""`/toil/<persona>`: an answer that is JSON."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from command_api.submitting import RecordsRefusals
from gateway.earlier.answering import answered, invalid
from gateway.earlier.personas import prompts
from gateway.earlier.personas.errors import responses
from gateway.earlier.personas.prompts import Caller, Persona
from gateway.earlier.personas.text import Session

router = APIRouter(prefix="/toil", tags=["earlier: personas"], route_class=RecordsRefusals)

_ANY = {"type": "object"}
_URL = re.compile(r"https?://\S+")


class ToilRequest(BaseModel):
    prompt: str | None = Field(None, description="what the persona is asked", examples=["Who is it about?"])
    schema_: dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="JSON Schema of the answer; none: any object",
        examples=[{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}],
    )
    text: str | None = Field(
        None,
        description="what it is answered from: a text, or the URL of one, where the tenant lets prompts name URLs",
        examples=["Ada Lovelace wrote the first program."],
    )


@router.post(
    "/{persona}",
    response_class=Response,
    summary="Personas: an answer that is JSON",
    responses={
        200: {
            "description": "JSON that keeps to the schema",
            "content": {"application/json": {"schema": {}, "example": {"name": "Ada Lovelace"}}},
        },
        **responses(400, 401, 403, 404, 409, 413, 429, 500, 502, 503),
    },
)
async def toil(
    request: Request, principal: Caller, persona: Persona, body: ToilRequest, session: Session = None
) -> Response:
    """The answer keeps to the schema, or it is an error as JSON."""
    await prompts.known(request, principal, persona)
    if not body.prompt:
        raise invalid("prompt", "is missing")
    # Any object is a schema, too: so answers are checked, and asked for again, whatever the model can.
    more: dict[str, Any] = {"response_format": {"json_schema": _ANY if body.schema_ is None else body.schema_}}
    if body.text:
        kind = "url" if _URL.fullmatch(body.text.strip()) else "text"
        more["sources"] = [{"kind": kind, kind: body.text.strip()}]
    conversation_id = prompts.conversation_of(session) if session else None
    found = await answered(request, principal, prompts.to_persona(persona, body.prompt, conversation_id, **more))
    return Response(found.text, headers=found.asked.headers, media_type="application/json")
