"""`/gpt/<persona>`: a prompt as a URL or a form says it, its answer as plain text."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from backplane.security.principal import Principal
from command_api.limit_answers import RATE_HEADERS
from command_api.submitting import RecordsRefusals
from gateway import asking
from gateway.earlier.answering import answered, invalid
from gateway.earlier.personas import prompts
from gateway.earlier.personas.errors import TEXT, text_responses
from gateway.earlier.personas.prompts import Caller, Persona

router = APIRouter(prefix="/gpt", tags=["earlier: personas"], route_class=RecordsRefusals)

Prompt = Annotated[
    str | None, Query(description="what the persona is asked; marks and a URL may stand in front", examples=["Hello!"])
]
Session = Annotated[
    str | None,
    Query(
        description="the conversation to go on with, as the header of the answer before named it; `urn:uuid:` may stand"
        " in front",
        examples=["urn:uuid:01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10"],
    ),
]

_FORM = "application/x-www-form-urlencoded"
_HEADERS = {
    asking.CONVERSATION_HEADER: {"description": "the session", "schema": {"type": "string"}},
    asking.GENERATION_HEADER: {"description": "the generation", "schema": {"type": "string"}},
    **RATE_HEADERS,
}
_ANSWER = {
    "description": "The answer",
    "headers": _HEADERS,
    "content": {"text/plain": {"schema": {"type": "string"}, "example": "Good morning."}},
}


@router.get(
    "/{persona}",
    response_class=Response,
    summary="Personas: a prompt in the URL",
    responses={200: _ANSWER, **text_responses(400, 401, 403, 404, 409, 413, 429, 500, 502, 503)},
)
async def ask_by_url(
    request: Request, principal: Caller, persona: Persona, prompt: Prompt = None, session: Session = None
) -> Response:
    """The answer as plain text. A client that goes away stops it."""
    return await _answer(request, principal, persona, prompt, session)


@router.post(
    "/{persona}",
    response_class=Response,
    summary="Personas: a prompt in a form",
    responses={200: _ANSWER, **text_responses(400, 401, 403, 404, 409, 413, 429, 500, 502, 503)},
    openapi_extra={
        "requestBody": {
            "content": {
                _FORM: {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "prompt": {
                                "type": "string",
                                "description": "what the persona is asked",
                                "examples": ["Hello!"],
                            },
                            "session": {
                                "type": "string",
                                "description": "the conversation to go on with",
                                "examples": ["urn:uuid:01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d10"],
                            },
                        },
                    }
                }
            }
        }
    },
)
async def ask_by_form(
    request: Request, principal: Caller, persona: Persona, prompt: Prompt = None, session: Session = None
) -> Response:
    """As `GET`; what the URL does not say, the form does."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        async with request.form() as form:
            said, named = form.get("prompt"), form.get("session")
        prompt = str(said) if prompt is None and said is not None else prompt
        session = str(named) if session is None and named is not None else session
    else:
        await request.body()  # it has to be read before it is seen that the client goes away
    return await _answer(request, principal, persona, prompt, session)


async def _answer(
    request: Request, principal: Principal, persona: str, prompt: str | None, session: str | None
) -> Response:
    await prompts.known(request, principal, persona)
    if not prompt:
        raise invalid("prompt", "is missing: send it in the URL, or in a form")
    marked, text = prompts.session_in_front(prompt)
    conversation_id = prompts.conversation_of(session) if session else marked
    found = await answered(request, principal, prompts.to_persona(persona, text, conversation_id))
    return Response(found.text, headers=found.asked.headers, media_type=TEXT)
