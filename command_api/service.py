"""What the routes of tenants, users, API keys and sessions need of the world."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request

from backplane.ports.database import Database
from backplane.ports.token_stream import Signals
from command_api.api_keys import ApiKeys
from command_api.oidc_sign_in import OidcSignIn
from command_api.outbox import Relay
from command_api.people import People
from command_api.sessions import Sessions


@dataclass(frozen=True, slots=True)
class PeoplePorts:
    """Stands at ``app.state.command.people``."""

    database: Database
    signals: Signals
    relay: Relay
    api_keys: ApiKeys
    people: People
    sessions: Sessions
    oidc: OidcSignIn
    key_pepper: str = field(repr=False)

    @classmethod
    def of(cls, request: Request) -> PeoplePorts:
        ports: PeoplePorts = request.app.state.command.people
        return ports
