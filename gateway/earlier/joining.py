"""Who signs up by themselves."""

from __future__ import annotations

from fastapi import Request
from starlette.requests import HTTPConnection

from backplane.ports.budget import Scope
from backplane.security.principal import Principal
from backplane.web.problems import Problem
from command_api.api_keys import MayNot
from command_api.limits import set_limits
from command_api.people import Invitation, UserExists
from command_api.service import PeoplePorts
from event_schemas.limits import Limits
from gateway.earlier.callers import holds_as_before
from gateway.ports import ports_of


class signs_up(holds_as_before):
    """The holder of the request's key, or else of the key that the settings have for who comes without one."""

    def given(self, request: HTTPConnection) -> str | None:
        admin_key = ports_of(request).doors.admin_key
        return super().given(request) or (None if admin_key is None else admin_key.get_secret_value())


async def joined(request: Request, principal: Principal, name: str | None, address: str, taken: str) -> Invitation:
    """A member of ``principal``'s tenant, with the rate that the settings give to who signs up.

    ``name`` is in events for ever, so no address may stand for it; None: they are called as their id. ``taken`` is
    what is said where there is one of that name or address. Raises Problem, DatabaseUnavailable.
    """
    ports = PeoplePorts.of(request)
    try:
        invited = await ports.people.invite(principal, name, address, "member")
    except UserExists:
        raise Problem(409, "user-exists", "The user is there already", taken) from None
    except MayNot as less:
        raise Problem(403, "beyond-own", "More than you have", str(less)) from None
    limit = ports_of(request).doors.rate_limit
    if limit is not None:
        scope = Scope("user", principal.tenant_id, str(invited.user_id))
        rate = Limits(requests_per_minute=limit)
        await set_limits(ports.database, ports.signals, scope, rate, actor=principal.actor)
    ports.relay.wake()
    return invited
