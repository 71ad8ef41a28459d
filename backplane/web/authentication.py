"""API keys and browser sessions on HTTP requests, and what their holders may."""

from __future__ import annotations

import hmac

from starlette.requests import HTTPConnection

from backplane.security import secret_token
from backplane.security.authenticator import Authenticator, NotAccepted
from backplane.security.permissions import Permission
from backplane.security.principal import Principal
from backplane.telemetry import logs
from backplane.web.problems import Problem

CSRF_HEADER = "X-CSRF-Token"
COOKIE = "parley_session"

SCHEMES = {
    "api_key": {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer parley_…`"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": f"A browser's session (`__Host-{COOKIE}` over TLS). What changes anything needs the header"
        f" `{CSRF_HEADER}`, too, with the token that `GET /v1/session` tells.",
    },
}

_CHANGES_NOTHING = ("GET", "HEAD", "OPTIONS")


class requires:
    """A dependency that gives the caller, if it has ``permission``.

    Raises Problem 401 without a valid key or session, 403 where its role may not, and where a session comes without
    its CSRF token and wants to change something. Expects ``app.state.authenticator``.
    """

    def __init__(self, permission: Permission) -> None:
        self.permission: Permission = permission

    async def caller(self, request: HTTPConnection) -> Principal:
        """Whose key or session the request has. Raises Problem."""
        return await _caller(request)

    async def __call__(self, request: HTTPConnection) -> Principal:
        request.state.principal = found = await self.caller(request)
        logs.concerns(tenant_id=found.tenant_id)
        if not found.may(self.permission):
            detail = f"The role {found.role!r} may not do this; it takes the permission {self.permission!r}."
            raise Problem(403, "forbidden", "Forbidden", detail, role=found.role, permission=self.permission)
        return found


def cookie_name(request: HTTPConnection) -> str:
    """Over TLS one that no other host and no page without TLS can set."""
    return f"__Host-{COOKIE}" if request.url.scheme == "https" else COOKIE


def session_token(request: HTTPConnection) -> str | None:
    """The session's token where the caller came with one; an API key goes before it."""
    return None if "authorization" in request.headers else request.cookies.get(cookie_name(request))


async def _caller(request: HTTPConnection) -> Principal:
    authenticator: Authenticator = request.app.state.authenticator
    token = session_token(request)
    try:
        if token is None:
            return await authenticator.principal(_bearer(request))
        found = await authenticator.session(token)
    except NotAccepted as refused:
        raise unauthorized(str(refused)) from None
    sent = request.headers.get(CSRF_HEADER, "").encode()
    if request.scope["method"] not in _CHANGES_NOTHING and not hmac.compare_digest(
        sent, secret_token.csrf_of(token).encode()
    ):
        detail = f"A session changes something only with the header {CSRF_HEADER}; `GET /v1/session` tells its value."
        raise Problem(403, "csrf", "CSRF token missing or wrong", detail)
    return found


def _bearer(request: HTTPConnection) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise unauthorized("Send an API key: `Authorization: Bearer parley_…`.")
    return key.strip()


def unauthorized(detail: str) -> Problem:
    """Nobody is known by what the request has."""
    return Problem(401, "unauthorized", "Unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
