"""Who calls with what signing in gave them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from backplane.security import secret_token
from backplane.security.authenticator import Authenticator, NotAccepted
from backplane.security.principal import Principal
from backplane.web.authentication import unauthorized
from gateway.callers import holds


class signed_in(holds):
    """As `holds`, of the token of a session, too, as `Authorization: Bearer …`: no page of another origin sends that by
    itself, as it would a cookie."""

    async def caller(self, request: HTTPConnection) -> Principal:
        token = self.given(request)
        if token is None or not secret_token.is_one(token):
            return await super().caller(request)
        authenticator: Authenticator = request.app.state.authenticator
        try:
            return await authenticator.session(token)
        except NotAccepted as refused:
            raise unauthorized(str(refused)) from None


Caller = Annotated[Principal, Depends(signed_in("conversations.use"))]
