"""`POST /prompt`: texts with `{places}`, which all else in the object fills. The answer is the object with `result`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from backplane.security.principal import Principal
from backplane.web.problems import Shape
from command_api.persona_file import UnusableFile, parameters_of
from command_api.submitting import RecordsRefusals
from command_api.templates import MOST_OUTPUT, shown
from gateway.earlier.answering import answered, invalid, prompt
from gateway.earlier.callers import holds_as_before
from gateway.earlier.details import detail_response, responses

router = APIRouter(tags=["earlier: prompt"], route_class=RecordsRefusals)

SHAPE = Shape(re.compile(r"/prompt$"), detail_response)

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_OWN = ("config", "system", "user", "template")
_NAMES = {
    "input": "user",
    "": "user",
    **{f"parameters.{one}": f"config.{one}" for one in ("temperature", "top_p", "max_tokens")},
}


class FilledPrompt(BaseModel):
    """Any other key fills the places of its name in `system` and `user`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "config": {"temperature": "0.7", "top_p": 0.95, "max_tokens": "256"},
                    "system": "You answer in {language}.",
                    "user": "What is {subject}?",
                    "template": "<s>[INST] {system} {user} [/INST]",
                    "language": "French",
                    "subject": "tea",
                }
            ]
        },
    )

    config: dict[str, str | float | None] = Field(
        default_factory=dict,
        description="`temperature`, `top_p` and `max_tokens`, as numbers or as what says one",
        examples=[{"temperature": "0.7"}],
    )
    system: str | None = Field(None, description="instructions, with places", examples=["You answer in {language}."])
    user: str = Field(description="what is asked, with places", examples=["What is {subject}?"])
    template: str | None = Field(
        None,
        description="how the two were put into one text: not used, since each model has its own; what it names besides"
        " them has to stand in one of them",
        examples=["<s>[INST] {system} {user} [/INST]"],
    )


class PromptWithResult(FilledPrompt):
    result: str = Field(description="the answer", examples=["Le thé est une boisson."])


@router.post(
    "/prompt",
    response_model=PromptWithResult,
    response_class=Response,
    summary="A prompt with places",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 502, 503),
)
async def ask_filled(
    request: Request, principal: Annotated[Principal, Depends(holds_as_before("conversations.use"))], body: FilledPrompt
) -> Response:
    """The same object, and its `result`. A place that no key fills is a 422 which names it."""
    given = json.loads(await request.body(), parse_constant=_no_number)
    try:
        parameters = parameters_of(body.config)
    except UnusableFile as wrong:
        field, _, why = str(wrong).partition(": ")
        raise invalid(field, why) from None
    fills = body.model_extra or {}
    asked = {
        "system": None if not body.system else filled("system", body.system, fills),
        "input": filled("user", body.user, fills),
        "parameters": parameters,
    }
    _check_template(body)
    found = await answered(request, principal, prompt(asked, _NAMES))
    return Response(json.dumps(given | {"result": found.text}), 200, found.asked.headers, "application/json")


def _no_number(constant: str) -> None:
    raise invalid("body", f"`{constant}` is no JSON")


def filled(field: str, text: str, fills: Mapping[str, Any]) -> str:
    """``text`` with its places filled; braces that are no place stay. Raises Problem, which names what is missing."""
    length = len(text)
    for name in _PLACE.findall(text):
        value = fills.get(name)
        if value is None:
            raise invalid(name, f"is missing: `{field}` has a place for it")
        if not isinstance(value, str | int | float):
            raise invalid(name, "is neither text nor a number")
        length += len(shown(value))
        if length > MOST_OUTPUT:
            raise invalid(field, f"has more than {MOST_OUTPUT} characters once it is filled")
    return _PLACE.sub(lambda place: shown(fills[place[1]]), text)


def _check_template(body: FilledPrompt) -> None:
    """What it alone names would be lost. Raises Problem."""
    named = {name for text in (body.system, body.user) for name in _PLACE.findall(text or "")}
    for name in _PLACE.findall(body.template or ""):
        if name not in (*_OWN, *named):
            raise invalid(
                "template", f"`{{{name}}}` has to stand in `system` or `user`: the template itself is not sent"
            )
