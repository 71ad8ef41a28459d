"""Models: https://platform.claude.com/docs/en/api/models-list

The paths are OpenAI's, too: who sends `anthropic-version` is Anthropic's client.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from backplane.web.problems import Problem
from gateway.anthropic import errors
from gateway.anthropic.answer import ModelInfo, ModelPage
from gateway.callers import Caller
from gateway.ports import ports_of
from gateway.problems import invalid


class OfAnthropic(APIRoute):
    """Is there for requests with Anthropic's header only."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        header = errors.VERSION_HEADER.encode()
        if not any(name == header for name, _ in scope.get("headers", ())):
            return Match.NONE, {}
        return super().matches(scope)


router = APIRouter(prefix="/v1/models", tags=["anthropic"], route_class=OfAnthropic)


@router.get("", summary="Anthropic: models", responses=errors.responses(400, 401, 403, 529))
async def page_of_models(
    request: Request,
    response: Response,
    principal: Caller,
    before_id: Annotated[str | None, Query(max_length=200, description="only models before this one")] = None,
    after_id: Annotated[str | None, Query(max_length=200, description="only models after this one")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="most models of the page")] = 20,
) -> ModelPage:
    """What the caller's key may ask, with the other names that clients may know them by."""
    response.headers["request-id"] = request.state.request_id
    found = [_info(request, *one) for one in ports_of(request).models(principal.models)]
    names = [one.id for one in found]
    begin = 0 if after_id is None else _place(names, "after_id", after_id) + 1
    end = len(names) if before_id is None else _place(names, "before_id", before_id)
    is_backwards = before_id is not None and after_id is None
    page = found[begin:end][-limit:] if is_backwards else found[begin:end][:limit]
    ids = [one.id for one in page]
    return ModelPage(
        data=page,
        has_more=len(page) < len(found[begin:end]),
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )


@router.get("/{model_id:path}", summary="Anthropic: one model", responses=errors.responses(400, 401, 403, 404, 529))
async def show_model(
    request: Request,
    response: Response,
    principal: Caller,
    model_id: Annotated[str, Path(max_length=200, description="its name, as `GET /v1/models` has it")],
) -> ModelInfo:
    response.headers["request-id"] = request.state.request_id
    for name, pool in ports_of(request).models(principal.models):
        if name == model_id:
            return _info(request, name, pool)
    raise Problem(404, "unknown-model", "No such model", f"There is no model {model_id!r}.")


def _info(request: Request, name: str, pool: str) -> ModelInfo:
    return ModelInfo(id=name, display_name=name, max_input_tokens=ports_of(request).settings.pools[pool].context_window)


def _place(names: list[str], parameter: str, name: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise invalid(parameter, "is no model of the list") from None
