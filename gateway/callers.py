"""Who calls through a door."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends
from starlette.requests import HTTPConnection

from backplane.security.api_key import ApiKey
from backplane.security.authenticator import Authenticator, NotAccepted
from backplane.security.principal import Principal
from backplane.web.authentication import requires, unauthorized
from gateway.ports import ports_of

_LOCAL_NAME = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


class holds(requires):
    """A dependency that gives the holder of the request's API key, if it has the permission: of `Authorization:
    Bearer …`, or of `x-api-key`.

    Raises Problem 401 and 403. Browser sessions open no door: clients that come here have keys.
    """

    async def caller(self, request: HTTPConnection) -> Principal:
        authenticator: Authenticator = request.app.state.authenticator
        given = self.given(request)
        local_key = ports_of(request).doors.local_key
        if local_key is not None and ApiKey.parse(given or "") is None and is_local(request):
            given = local_key.get_secret_value()
        if given is None:
            raise unauthorized("Send an API key: `Authorization: Bearer parley_…`.")
        try:
            return await authenticator.principal(given)
        except NotAccepted as refused:
            raise unauthorized(str(refused)) from None

    def given(self, request: HTTPConnection) -> str | None:
        """What the request has for a key; None where it has nothing."""
        return key_of(request)


Caller = Annotated[Principal, Depends(holds("conversations.use"))]


def key_of(request: HTTPConnection) -> str | None:
    """What the request has for a key; None where it has nothing."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return request.headers.get("x-api-key")


def is_local(request: HTTPConnection) -> bool:
    """It came from this machine, to it by name, and from no page elsewhere: such a one can have a browser call here, by
    socket or link, and under a name of its own that leads here (DNS rebinding)."""
    peer = request.client
    try:
        from_here = peer is not None and ipaddress.ip_address(peer.host).is_loopback
    except ValueError:
        return False
    return from_here and bool(_LOCAL_NAME.fullmatch(request.headers.get("host", ""))) and not _is_of_other_page(request)


def _is_of_other_page(request: HTTPConnection) -> bool:
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    known = ports_of(request).settings.cors_origins
    return origin not in known and urlsplit(origin).netloc != request.headers.get("host")
