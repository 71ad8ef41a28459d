"""The two providers that clients of sessions know, and which model of theirs is meant."""

from __future__ import annotations

from typing import Literal

from backplane.settings import Settings
from backplane.settings.pools import BackendName
from gateway.earlier.answering import invalid
from gateway.ports import GatewayPorts

Family = Literal["openai", "anthropic"]

_BACKENDS: dict[Family, frozenset[BackendName]] = {
    "openai": frozenset(("openai", "azure")),
    "anthropic": frozenset(("anthropic", "bedrock", "vertex")),
}


def pools_of(settings: Settings, family: Family) -> list[str]:
    """Those that ask for the models of ``family``."""
    return [name for name, pool in settings.pools.items() if pool.backend in _BACKENDS[family]]


def keyed_by(settings: Settings, family: Family) -> list[str]:
    """Those that a key of ``family`` is for: they ask the provider itself, or the operator called them as it. A pool
    with a ``base_url`` may ask anybody's server, who would get the key."""
    return [
        name
        for name, pool in settings.pools.items()
        if pool.backend == family and (name == family or pool.base_url is None)
    ]


def model_of(ports: GatewayPorts, family: Family, name: str | None) -> str:
    """``name``, where it is a model of ``family``; what the operator says stands for it; the first of the family where
    a client names none. Raises Problem."""
    pools = pools_of(ports.settings, family)
    if name is not None and (pool := ports.settings.pool_of(name)) is not None:
        if pool not in pools:
            raise invalid("query.gpt_type", f"the model {name!r} is not {family}'s")
        return name
    if name in ports.doors.aliases:
        return ports.model(name) or name
    if not pools:
        raise invalid("query.gpt_type", f"there is no pool that asks {family}, and no alias of the model")
    first = next((found for pool in pools if (found := ports.settings.pools[pool].default_model)), None)
    if name is None and first is None:
        raise invalid("body.model", f"is missing: no pool of {family} has a model by default")
    return name or str(first)
