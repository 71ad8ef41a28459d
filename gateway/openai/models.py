"""Models: https://platform.openai.com/docs/api-reference/models"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request

from backplane.web.problems import Problem
from gateway.callers import Caller
from gateway.openai import errors
from gateway.openai.answer import Model, ModelList
from gateway.ports import ports_of

router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models", summary="OpenAI: models", responses=errors.responses(401, 403, 503))
async def list_models(request: Request, principal: Caller) -> ModelList:
    """What the caller's key may ask, with the other names that clients may know them by."""
    found = ports_of(request).models(principal.models)
    return ModelList(data=[Model(id=name, owned_by=pool) for name, pool in found])


@router.get("/models/{model_id:path}", summary="OpenAI: one model", responses=errors.responses(401, 403, 404, 503))
async def get_model(
    request: Request,
    principal: Caller,
    model_id: Annotated[str, Path(max_length=200, description="its name, as `GET /v1/models` has it")],
) -> Model:
    for name, pool in ports_of(request).models(principal.models):
        if name == model_id:
            return Model(id=name, owned_by=pool)
    raise Problem(404, "unknown-model", "No such model", f"There is no model {model_id!r}.")
