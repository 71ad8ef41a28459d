"""Workers beside the one a pool that `parley up` starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from benches.installation import Installation
from benches.server import Deaths
from cli.child import Launch, Program
from cli.programs import service_programs
from cli.supervisor import Supervisor


@asynccontextmanager
async def more_workers(installation: Installation, pool: str, count: int, deaths: list[str]) -> AsyncIterator[None]:
    """``count`` more of ``pool``; ``deaths`` gets a line for each that died meanwhile. Raises ChildFailed."""
    supervisor = Supervisor(installation.settings.data_dir / "logs", Deaths(deaths))
    programs = [_worker(installation, pool, number) for number in range(2, count + 2)]
    try:
        await asyncio.gather(*map(supervisor.start, programs))
        yield
    finally:
        await supervisor.stop()


def _worker(installation: Installation, pool: str, number: int) -> Program:
    first = next(each for each in service_programs(installation.settings) if each.name == f"worker-{pool}")

    async def launch() -> Launch:
        launched = await first.launch()
        return replace(launched, environment={**installation.environment, **launched.environment})

    return replace(first, name=f"{first.name}-{number}", launch=launch)
