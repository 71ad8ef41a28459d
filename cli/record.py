"""`parley record`: the record beside what the bus still holds."""

from __future__ import annotations

import sys

import typer

from backplane.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="The record of all tenants.")


@commands.callback()
def _record() -> None: ...


@commands.command("compare")
def compare() -> None:
    """Look for everything that the bus still holds in the record, and the other way round; exit 1 where they differ."""
    from cli import command

    raise typer.Exit(command.run(_compare))


async def _compare(settings: Settings) -> int:
    from datetime import timedelta

    from backplane.wiring.embedded import owner_database
    from backplane.wiring.operations import operator_bus, topics
    from cli.board import Board
    from cli.failures import ConfigurationError
    from event_schemas.codec import NewerVersion
    from projections.bus_comparison import compare_with_bus

    retention = timedelta(hours=settings.bus.retention_hours)
    database = owner_database(settings)
    try:
        async with operator_bus(settings) as bus:
            with Board(plain_progress=False) as board:
                report = await compare_with_bus(
                    database,
                    bus,
                    topics(settings),
                    retention,
                    lambda share: board.progress("record", "reading the bus", share),
                )
                board.done("record")
    except NewerVersion as error:
        raise ConfigurationError(str(error)) from None
    finally:
        await database.close()
    verdict = f"{report.differing} DIFFER" if report.differing else "equal"
    print(
        f"{verdict}: {report.messages} messages of the bus, {report.lines} lines of the record that must be on it; "
        f"{report.waiting} messages wait for the projections, {report.unreadable} are no events"
    )
    for difference in report.differences:
        print(f"  {difference}", file=sys.stderr)
    return 1 if report.differing else 0
