"""Answers as a whole, for clients that wait for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import Request
from pydantic import ValidationError

from backplane.security.principal import Principal
from backplane.web.problems import Problem
from command_api.prompt import PromptBody
from event_schemas.chat import text_of
from gateway import asking
from gateway.asking import Asked, Whole
from gateway.presence import while_there
from gateway.problems import failed


class Answered(NamedTuple):
    asked: Asked
    whole: Whole

    @property
    def text(self) -> str:
        return text_of(self.whole.pieces)


async def answered(request: Request, principal: Principal, body: PromptBody) -> Answered:
    """Raises Problem where it is refused or does not complete, Gone where the client goes away, and as `asking.ask`."""
    asked = await asking.ask(request, principal, body)
    async with asking.stopped_without_reader(request, principal, [asked]):
        steps = await asking.follow_asked(request, principal, asked)
        whole = await while_there(request, asking.whole(steps))
    if not whole.is_complete:
        raise failed(whole.detail)
    return Answered(asked, whole)


def prompt(given: Mapping[str, Any], names: Mapping[str, str]) -> PromptBody:
    """``names`` are what a protocol calls fields of a prompt. Raises Problem, which names the field as that does."""
    try:
        return PromptBody.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise invalid(names.get(where, where) or "prompt", first["msg"].removeprefix("Value error, ")) from None


def invalid(field: str, why: str) -> Problem:
    return Problem(422, "invalid-request", "Invalid request", why, errors=[{"field": field, "message": why}])


def message(problem: Problem) -> str:
    """What is wrong, on a line."""
    errors = problem.extra.get("errors")
    if not errors:
        return problem.detail
    return "; ".join(f"{_bare(one['field'])}: {one['message']}" for one in errors[:5])


def _bare(field: str) -> str:
    for above in ("body.", "query.", "path."):
        field = field.removeprefix(above)
    return field
