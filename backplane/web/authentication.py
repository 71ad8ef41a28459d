"""API keys on HTTP requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request

from backplane.security.authenticator import Authenticator
from backplane.security.principal import Principal
from backplane.web.problems import Problem
from event_schemas.control_plane import KeyRole

SCHEME = {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer parley_…`"}


def requires(*roles: KeyRole) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency that gives the caller, if its role is one of ``roles``.

    Raises Problem 401 without a valid key, 403 where the role may not. Expects ``app.state.authenticator``.
    """

    async def principal(request: Request) -> Principal:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise _unauthorized("Send an API key: `Authorization: Bearer parley_…`.")
        authenticator: Authenticator = request.app.state.authenticator
        found = await authenticator.principal(key.strip())
        if found is None:
            raise _unauthorized("The API key is unknown, expired or revoked.")
        request.state.principal = found
        if found.role not in roles:
            raise Problem(
                403, "forbidden", "Forbidden", f"A key with the role {found.role!r} may not do this.", role=found.role
            )
        return found

    return principal


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", "Unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
