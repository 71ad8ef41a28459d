"""Models: https://platform.openai.com/docs/api-reference/models"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Path, Request

from backplane.security.principal import Principal
from backplane.web.problems import Problem
from gateway.callers import Caller
from gateway.openai import errors
from gateway.openai.answer import Model, ModelList
from gateway.ports import GatewayPorts, ports_of

router = APIRouter(prefix="/v1", tags=["openai"])


@router.get("/models", summary="OpenAI: models", responses=errors.responses(401, 403, 503))
async def list_models(request: Request, principal: Caller) -> ModelList:
    """What the caller's key may ask, with the other names that clients may know them by."""
    return ModelList(data=list(_models(ports_of(request), principal)))


@router.get("/models/{model_id:path}", summary="OpenAI: one model", responses=errors.responses(401, 403, 404, 503))
async def get_model(
    request: Request,
    principal: Caller,
    model_id: Annotated[str, Path(max_length=200, description="its name, as `GET /v1/models` has it")],
) -> Model:
    found = next((one for one in _models(ports_of(request), principal) if one.id == model_id), None)
    if found is None:
        raise Problem(404, "unknown-model", "No such model", f"There is no model {model_id!r}.")
    return found


def _models(ports: GatewayPorts, principal: Principal) -> Iterator[Model]:
    for name, owner in (*ports.models(principal.models), *_of_embedders(ports, principal)):
        yield Model(id=name, owned_by=owner)


def _of_embedders(ports: GatewayPorts, principal: Principal) -> Iterator[tuple[str, str]]:
    embedders = ports.settings.knowledge.embedders
    names = dict.fromkeys([*embedders, *(one.model for one in embedders.values() if one.model is not None)])
    for name in names | dict.fromkeys(ports.doors.embedding_aliases):
        embedder = ports.settings.knowledge.embedder_of(ports.embedder(name))
        # What a pool serves by this name is meant by it.
        is_free = ports.settings.pool_of(name) is None
        if embedder is not None and is_free and (principal.models is None or embedder in principal.models):
            yield name, embedder
