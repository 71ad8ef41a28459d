"""Signing in with an OpenID Connect provider over HTTP: there, and back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from backplane.security.oidc import OidcFailed
from backplane.web.problems import Problem, not_found, responses
from command_api.oidc_sign_in import LASTS_S, NoSuchProvider, NotInvited
from command_api.service import PeoplePorts
from command_api.session_routes import let_in
from command_api.sessions import Suspended

router = APIRouter(prefix="/v1/oidc", tags=["sessions"])

_COOKIE = "parley_oidc"
_PUBLIC: dict[str, list[str]] = {"security": []}

Provider = Annotated[str, Path(max_length=40, description="as the settings name it")]


class ProviderList(BaseModel):
    providers: list[str] = Field(description="as the settings name them", examples=[["company"]])


@router.get(
    "",
    response_model=ProviderList,
    summary="Providers to sign in with",
    openapi_extra=_PUBLIC,
    responses=responses(422, 503),
)
async def list_providers(request: Request) -> ProviderList:
    """For a page that lets people sign in."""
    return ProviderList(providers=PeoplePorts.of(request).oidc.names)


@router.get(
    "/{provider}/sign-in",
    status_code=303,
    response_class=RedirectResponse,
    summary="Go to a provider",
    openapi_extra=_PUBLIC,
    responses={303: {"description": "to the provider"}, **responses(404, 422, 503)},
)
async def begin(request: Request, provider: Provider) -> RedirectResponse:
    """A link, not a request of a script: the browser goes to the provider, and comes back to the callback."""
    ports = PeoplePorts.of(request)
    try:
        url, kept = await ports.oidc.begin(provider, _callback(request, provider))
    except NoSuchProvider:
        raise not_found("provider") from None
    except OidcFailed as failed:
        raise _failed(failed) from None
    answer = RedirectResponse(url, 303, headers={"Cache-Control": "no-store"})
    # Lax, since it comes back by a link of another site's.
    answer.set_cookie(
        _COOKIE, kept, max_age=LASTS_S, path="/v1/oidc", httponly=True, samesite="lax", secure=_tls(request)
    )
    return answer


@router.get(
    "/{provider}/callback",
    status_code=303,
    response_class=RedirectResponse,
    summary="Come back from a provider",
    openapi_extra=_PUBLIC,
    responses={303: {"description": "signed in; to the front page"}, **responses(401, 403, 404, 422, 503)},
)
async def finish(
    request: Request,
    provider: Provider,
    state: Annotated[str, Query(max_length=200, description="as the provider was told")] = "",
    code: Annotated[str, Query(max_length=4096, description="what the provider gives for it")] = "",
    error: Annotated[str, Query(max_length=200, description="why the provider refused")] = "",
) -> RedirectResponse:
    """Only the provider leads here. Begins a session, as signing in with a password does."""
    ports = PeoplePorts.of(request)
    try:
        kept = request.cookies.get(_COOKIE, "")
        begun = await ports.oidc.finish(provider, kept, state, "" if error else code, _callback(request, provider))
    except NoSuchProvider:
        raise not_found("provider") from None
    except OidcFailed as failed:
        raise _failed(failed) from None
    except NotInvited:
        detail = "The provider knows you, and nobody invited you here: ask an admin for an invitation."
        raise Problem(403, "not-invited", "Not invited", detail) from None
    except Suspended:
        raise Problem(401, "suspended", "Suspended", "This user, or their tenant, is suspended.") from None
    answer = RedirectResponse("/", 303)
    answer.delete_cookie(_COOKIE, path="/v1/oidc", httponly=True, samesite="lax", secure=_tls(request))
    let_in(request, answer, begun)
    return answer


def _callback(request: Request, provider: str) -> str:
    return f"{request.base_url}v1/oidc/{provider}/callback"


def _tls(request: Request) -> bool:
    return request.url.scheme == "https"


def _failed(failed: OidcFailed) -> Problem:
    return Problem(401, "oidc-failed", "Not signed in", f"Signing in failed: {failed}.")
