"""A Parley with several workers, a tenant that floods it, and light tenants beside that one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from backplane.ports.bus import Publisher
from backplane.wiring.operations import operator_bus
from benches.installation import POOL, Installation
from benches.load import Target
from benches.more_workers import more_workers
from benches.parley import running
from cli import tenancy
from command_api.lanes import lanes
from event_schemas.topics import WORKERS, commands

WORKER_COUNT = 3
SLOTS = 4
"""Of each worker."""

_MOST_TENANTS = 500
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Crowded:
    """``light``: one tenant for each number of lanes that it can share with the flood's."""

    flood: Target
    light: dict[int, Target]
    bus: Publisher

    async def backlog(self) -> int:
        """Prompts that are accepted and not yet answered. Raises BusError."""
        return sum(await self.bus.backlog(commands(POOL), WORKERS))

    async def idle(self) -> None:
        """Return once all that was accepted is answered. Raises BusError."""
        # There is nothing here to wait on.
        while await self.backlog():  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)


def shared_lanes(one: UUID, other: UUID, partitions: int) -> int:
    """How many lanes two tenants have in common."""
    return len({*lanes(one, partitions)} & {*lanes(other, partitions)})


def sharings(partitions: int) -> range:
    """How many lanes two tenants can have in common."""
    return range(max(0, 4 - partitions), 3) if partitions > 1 else range(1, 2)


@asynccontextmanager
async def crowded(installation: Installation, wrong: list[str]) -> AsyncIterator[Crowded]:
    """``wrong`` gets a line for each service that died meanwhile. Raises NotStarted, CommandError, BusError."""
    settings = installation.settings
    async with running(installation) as parley:
        anybody = await parley.target()
        flood = await tenancy.create_tenant(settings, "flood")
        light = await _light(installation, flood)
        targets = {
            tenant: anybody.model_copy(update={"key": await tenancy.issue_key(settings, tenant, "member")})
            for tenant in (flood, *light.values())
        }
        async with more_workers(installation, POOL, WORKER_COUNT - 1, wrong), operator_bus(settings) as bus:
            yield Crowded(targets[flood], {sharing: targets[tenant] for sharing, tenant in light.items()}, bus)
    wrong += parley.deaths


async def _light(installation: Installation, flood: UUID) -> dict[int, UUID]:
    settings = installation.settings
    partitions = settings.bus.partitions
    found: dict[int, UUID] = {}
    for number in range(_MOST_TENANTS):
        tenant = await tenancy.create_tenant(settings, f"light {number}")
        found.setdefault(shared_lanes(flood, tenant, partitions), tenant)
        if len(found) == len(sharings(partitions)):
            break
    return dict(sorted(found.items()))
