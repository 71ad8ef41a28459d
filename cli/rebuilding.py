"""`parley rebuild`: read models from the record."""

from __future__ import annotations

import gc
import sys

from backplane.settings import Settings
from backplane.wiring.embedded import owner_database
from backplane.wiring.operations import RebuildRunning, ShadowDiffers, shadow_tables
from cli.board import Board
from cli.failures import CommandError, ConfigurationError, TryAgain
from event_schemas.codec import NewerVersion
from projections.catalog import EVENT_LOG, MODELS
from projections.rebuild import RecordIsNotRebuilt, RecordIsPruned, Report, StillBusy, rebuild

_CONNECTIONS = 3
_YOUNG_OBJECTS = 500_000
"""After so many new objects the garbage collector looks for cycles among them."""


async def run(settings: Settings, model: str, *, check: bool) -> int:
    """Rebuild or check ``model``, or all of them; returns the exit code.

    Raises CommandError, DatabaseUnavailable.
    """
    if model != "all" and model not in MODELS:
        raise CommandError(f"there is no read model {model!r}; there are {', '.join(MODELS)}, and `all`")
    wanted = [model] if model != "all" else [name for name in MODELS if check or name != EVENT_LOG]
    differs = False
    # Every page is tens of thousands of objects and no cycles; looking through them again and again took two fifths.
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    with Board(plain_progress=False) as board:
        for name in wanted:
            report = await _one(settings, name, board, check=check)
            board.line(_said(report, check=check))
            for difference in report.differences:
                print(f"  {difference}", file=sys.stderr)
            differs = differs or bool(report.differences)
    return 1 if differs else 0


async def _one(settings: Settings, model: str, board: Board, *, check: bool) -> Report:
    database = owner_database(settings, connections=_CONNECTIONS)
    try:
        return await rebuild(
            database,
            shadow_tables(settings),
            model,
            check=check,
            progress=lambda share: board.progress(model, "reading the record", share),
        )
    except (StillBusy, RebuildRunning) as error:
        raise TryAgain(str(error)) from None
    except (RecordIsNotRebuilt, RecordIsPruned, ShadowDiffers) as error:
        raise CommandError(str(error)) from None
    except NewerVersion as error:
        raise ConfigurationError(str(error)) from None
    finally:
        board.done(model)
        await database.close()


def _said(report: Report, *, check: bool) -> str:
    if not check:
        return f"{report.model}: rebuilt from {report.lines} lines of the record"
    if report.differences:
        return f"{report.model}: DIFFERS from the record ({report.lines} lines)"
    return f"{report.model}: equals the record ({report.lines} lines)"
