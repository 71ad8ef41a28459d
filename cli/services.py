"""One service in this process: what `parley up` starts, and what a cluster runs one by one."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Annotated

import typer

from backplane.settings import Settings

app = typer.Typer()

PANEL = "Services"

logger = logging.getLogger(__name__)


def _run(name: str, serve: object) -> None:
    from cli import process
    from cli.programs import settings_of_one_service

    raise typer.Exit(process.run(name, serve, settings_of_one_service))  # type: ignore[arg-type]


@app.command(rich_help_panel=PANEL)
def gateway() -> None:
    """Serve all APIs on one port."""
    import gateway.main

    _run("gateway", gateway.main.serve)


@app.command("command-api", rich_help_panel=PANEL)
def command_api() -> None:
    """Serve the command API alone."""
    import command_api.main

    _run("command_api", command_api.main.serve)


@app.command("query-api", rich_help_panel=PANEL)
def query_api() -> None:
    """Serve the query API alone."""
    import query_api.main

    _run("query_api", query_api.main.serve)


@app.command(rich_help_panel=PANEL)
def worker(
    pool: Annotated[str, typer.Option(help="The pool whose prompts it runs, as in the settings.")] = "local",
    on_ray: Annotated[bool, typer.Option("--ray", help="Run workers as actors of a Ray cluster.")] = False,
    ray_address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="That cluster's address; auto: the one of this machine.")
    ] = "auto",
    count: Annotated[int, typer.Option("--workers", min=1, max=1000, help="How many, with --ray.")] = 1,
) -> None:
    """Run the prompts of one pool."""
    if count > 1 and not on_ray:
        raise typer.BadParameter("one process is one worker; start several, or add --ray", param_hint="--workers")
    from backplane.telemetry import status
    from cli import configuration, local_models

    async def serve(settings: Settings, stop: asyncio.Event) -> None:
        from cli.failures import ConfigurationError

        if pool not in settings.pools:
            raise ConfigurationError(f"there is no pool {pool!r}; the settings have {', '.join(settings.pools)}")
        if on_ray:
            from cli import ray_pool

            return await ray_pool.serve(settings, stop, pool=pool, address=ray_address, count=count)
        import workers.main
        from workers.inference.gpus import visible

        os.environ.update(visible(settings.pools[pool].gpus))  # read once, when the engine loads
        settings = await local_models.resolved_for(pool, settings, configuration.load_llm(), status.progress)
        for notice in local_models.new_notices(settings):
            logger.info(notice, extra={"action": "license_notice"})
        return await workers.main.serve(settings, stop, pool=pool)

    _run(f"worker-{pool}", serve)


@app.command(rich_help_panel=PANEL)
def projections() -> None:
    """Write the read models."""
    import projections.main

    _run("projections", projections.main.serve)


@app.command(rich_help_panel=PANEL)
def ingest() -> None:
    """Make documents findable, and search them for the other services."""
    import workers.ingest

    _run("ingest", workers.ingest.serve)
