"""What the doors stand on: the two APIs' own ports, and their settings."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from backplane.settings import Settings
from backplane.settings.doors import DoorSettings


@dataclass(frozen=True, slots=True)
class GatewayPorts:
    """Stands at ``app.state.gateway``, beside ``app.state.command`` and ``app.state.query``."""

    settings: Settings

    @property
    def doors(self) -> DoorSettings:
        return self.settings.doors

    def model(self, name: str | None) -> str | None:
        """The model that a client means; None: the default one, where there is one."""
        if name is None or self.settings.pool_of(name) is not None:
            return name
        alias = self.doors.aliases.get(name)
        return name if alias is None else alias or self.settings.default_model or name


def ports_of(request: Request) -> GatewayPorts:
    ports: GatewayPorts = request.app.state.gateway
    return ports
