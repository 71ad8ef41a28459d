"""What a client says to a persona, as a prompt. A session is a conversation."""

from __future__ import annotations

import re
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Path
from starlette.requests import HTTPConnection

from backplane.security.principal import Principal
from backplane.web.problems import not_found
from command_api.prompt import PromptBody
from gateway.earlier.answering import invalid, prompt
from gateway.earlier.callers import holds_as_before
from query_api import personas
from query_api.answers import answers
from query_api.personas import PersonaVersion

CALLER = holds_as_before("conversations.use")
Caller = Annotated[Principal, Depends(CALLER)]
Persona = Annotated[str, Path(max_length=64, description="the persona's name", examples=["translator"])]

URN = "urn:uuid:"
_SESSION = re.compile(r"\|SESSION\|(?P<session>.*?)\|/SESSION\|", re.DOTALL)
_NAMES = {"input": "prompt", "": "prompt", "response_format.json_schema": "schema", "sources.0.text": "text"}


async def known(request: HTTPConnection, principal: Principal, persona: str) -> PersonaVersion:
    """The persona's newest version. Raises Problem, DatabaseUnavailable, BusError, WrappingUnavailable."""
    with answers():
        return await personas.one(request.app.state.query, principal, persona)


def conversation_of(session: str) -> UUID:
    """``session`` as `<END …>` named it, or a bare id. Raises Problem."""
    try:
        return UUID(session.strip().removeprefix(URN))
    except ValueError:
        raise not_found("session") from None


def session_in_front(text: str) -> tuple[UUID | None, str]:
    """The conversation that a mark in front names, and what follows the mark. Raises Problem."""
    marked = _SESSION.match(text)
    if marked is None:
        if text.startswith("|SESSION|"):
            raise invalid("prompt", "`|SESSION|` has no `|/SESSION|` after it")
        return None, text
    return conversation_of(marked["session"]), text[marked.end() :].lstrip()


def to_persona(persona: str, text: str, conversation_id: UUID | None, **more: Any) -> PromptBody:
    """A conversation that goes on stays with the version of the persona that it has. Raises Problem."""
    where = {"persona": persona} if conversation_id is None else {"conversation_id": conversation_id}
    return prompt({**where, "input": text, **more}, _NAMES)
