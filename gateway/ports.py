"""What the doors stand on: the two APIs' own ports, and their settings."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from starlette.requests import HTTPConnection

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

    def models(self, allowed: Collection[str] | None) -> Iterator[tuple[str, str]]:
        """Each model that may be asked, by each name that clients may know it by, and the pool that serves it;
        ``allowed``: only those, whatever their other names."""
        known = dict.fromkeys(name for pool in self.settings.pools.values() for name in pool.model_names)
        for name in (*known, *(alias for alias in self.doors.aliases if alias not in known)):
            model = self.model(name)
            pool = None if model is None else self.settings.pool_of(model)
            if pool is not None and (allowed is None or model in allowed):
                yield name, pool

    def embedder(self, name: str) -> str:
        """The embedder, or its model, that a client means."""
        knowledge = self.settings.knowledge
        if knowledge.embedder_of(name) is not None:
            return name
        alias = self.doors.embedding_aliases.get(name)
        return name if alias is None else alias or knowledge.default_embedder


def ports_of(request: HTTPConnection) -> GatewayPorts:
    ports: GatewayPorts = request.app.state.gateway
    return ports
