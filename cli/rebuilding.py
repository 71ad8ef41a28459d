"""`parley rebuild`: read models from the record, or beside it and the bus."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from backplane.ports.database import Database
from backplane.settings import Settings
from backplane.wiring.embedded import owner_database
from backplane.wiring.operations import RebuildRunning, ShadowDiffers, operator_bus, shadow_tables
from cli.board import Board
from cli.failures import CommandError, ConfigurationError, TryAgain
from event_schemas.codec import NewerVersion
from projections.bus_replay import NotTheSameEvents, compare_from_bus
from projections.catalog import EVENT_LOG, MODELS
from projections.rebuild import RecordIsNotRebuilt, RecordIsPruned, Report, StillBusy, rebuild

_CONNECTIONS = 3
_YOUNG_OBJECTS = 500_000
"""After so many new objects the garbage collector looks for cycles among them."""


async def run(settings: Settings, model: str, *, check: bool, from_bus: bool = False) -> int:
    """Rebuild or check ``model``, or all of them; returns the exit code.

    Raises CommandError, DatabaseUnavailable, BusError.
    """
    if model != "all" and model not in MODELS:
        raise CommandError(f"there is no read model {model!r}; there are {', '.join(MODELS)}, and `all`")
    if from_bus:
        _refuse_from_bus(model, check=check)
    with_record = check and not from_bus
    wanted = [model] if model != "all" else [name for name in MODELS if with_record or name != EVENT_LOG]
    differs = False
    # Every page is tens of thousands of objects and no cycles; looking through them again and again took two fifths.
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    with Board(plain_progress=False) as board:
        reports = _from_bus(settings, wanted, board) if from_bus else _each(settings, wanted, board, check=check)
        async for report in reports:
            board.line(_said(report, check=check, source="the bus" if from_bus else "the record"))
            for difference in report.differences:
                print(f"  {difference}", file=sys.stderr)
            differs = differs or bool(report.differences)
    return 1 if differs else 0


def _refuse_from_bus(model: str, *, check: bool) -> None:
    if not check:
        raise CommandError(
            "--from-bus needs --check: read models are rebuilt from the record alone. At best the bus says the same;"
            " what it has dropped would be gone from them, and ciphertext that was cut off since would be back"
        )
    if model == EVENT_LOG:
        raise CommandError(f"{EVENT_LOG} is the record itself; it is compared with the bus by: parley record compare")


async def _each(settings: Settings, models: Sequence[str], board: Board, *, check: bool) -> AsyncIterator[Report]:
    for model in models:
        async with _at_work(settings, board, model) as database:
            report = await rebuild(
                database,
                shadow_tables(settings),
                model,
                check=check,
                progress=partial(board.progress, model, "reading the record"),
            )
        yield report


async def _from_bus(settings: Settings, models: Sequence[str], board: Board) -> AsyncIterator[Report]:
    async with _at_work(settings, board, "read models") as database, operator_bus(settings) as bus:
        reports = await compare_from_bus(
            database,
            bus,
            shadow_tables(settings),
            models,
            progress=partial(board.progress, "read models", "reading the bus"),
        )
    for report in reports:
        yield report


@asynccontextmanager
async def _at_work(settings: Settings, board: Board, source: str) -> AsyncIterator[Database]:
    """The owner's database; what may go wrong is said as the command line says it."""
    database = owner_database(settings, connections=_CONNECTIONS)
    try:
        yield database
    except (StillBusy, RebuildRunning) as error:
        raise TryAgain(str(error)) from None
    except (RecordIsNotRebuilt, RecordIsPruned, ShadowDiffers, NotTheSameEvents) as error:
        raise CommandError(str(error)) from None
    except NewerVersion as error:
        raise ConfigurationError(str(error)) from None
    finally:
        board.done(source)
        await database.close()


def _said(report: Report, *, check: bool, source: str) -> str:
    if not check:
        return f"{report.model}: rebuilt from {report.lines} lines of the record"
    verdict = "DIFFERS from" if report.differences else "equals"
    rows = "" if report.model == EVENT_LOG else f", {report.rows} rows, {report.erased} of them erased"
    return f"{report.model}: {verdict} {source} ({report.lines} lines{rows})"
