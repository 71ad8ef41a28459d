"""`parley pulsar`: a namespace that is ready for Parley, and a broker for one machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(no_args_is_help=True, help="Apache Pulsar.")


@commands.command(
    epilog="Example:  PARLEY_BUS__PULSAR__URL=pulsar://… PARLEY_BUS__PULSAR__ADMIN_URL=http://… parley pulsar setup"
)
def setup(
    grant: Annotated[
        list[str] | None, typer.Option(help="A role of the broker that may publish and subscribe; repeatable.")
    ] = None,
) -> None:
    """Make what is missing: tenant, namespace, topics and subscriptions; set the namespace's policies. Repeatable.

    Prints the topics. Needs a token whose role administers the tenant; the services need less: to produce and consume.
    """
    from backplane.wiring.operations import set_up_bus
    from cli import configuration
    from cli.failures import ConfigurationError

    settings = configuration.load()
    if settings.bus.pulsar.url is None:
        raise ConfigurationError(
            "bus.pulsar.url is not set: set PARLEY_BUS__PULSAR__URL and PARLEY_BUS__PULSAR__ADMIN_URL "
            "(without them the bus is kept in Postgres, and `parley migrate` sets it up)"
        )
    namespace = f"persistent://{settings.bus.pulsar.tenant}/{settings.bus.pulsar.namespace}"
    for topic in asyncio.run(set_up_bus(settings, grant=grant or ())):
        print(f"{namespace}/{topic}")


@commands.command(epilog="Example:  parley pulsar standalone --port 6651 --admin-port 8081 --bookie-port 3182")
def standalone(
    folder: Annotated[
        Path | None, typer.Option(help="Where it keeps its data; none: pulsar/ in the data folder.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the binary protocol.")] = 6650,
    admin_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the admin REST API.")] = 8080,
    bookie_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of its storage; keep it.")] = 3181,
) -> None:
    """Run a broker on this machine until Ctrl-C, for development, tests and benches.

    Needs a JDK (17 or newer) and Maven, which fetches 235 MB from Maven Central once; or Docker.
    """
    from cli import broker, configuration

    data = configuration.load().data_dir
    raise typer.Exit(asyncio.run(broker.run(folder or data / "pulsar", port, admin_port, bookie_port)))
