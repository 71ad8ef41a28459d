"""`python -m benches`: measure a Parley of its own, and print the tables for docs/benchmarks.md."""

from __future__ import annotations

import asyncio
import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from backplane.ports.bus import BusError
from backplane.ports.database import DatabaseUnavailable
from benches.board import Board
from benches.bus import Bus, missing
from benches.child import LoadFailed
from benches.fairness import FairnessPlan, FairnessRun, fairness_plan, measure_fairness, quick_fairness
from benches.fairness_tables import fairness_markdown
from benches.installation import apart
from benches.measurements import Run
from benches.parley import NotStarted
from benches.plan import Plan, plan, quick
from benches.record_alone import RecordPlan, RecordRun, measure_record_alone, record_markdown, record_plan
from benches.report import markdown
from benches.retrieval import RetrievalPlan, RetrievalRun, measure_retrieval, retrieval_markdown
from benches.run import measure
from cli.configuration import load
from cli.failures import CommandError
from workers.embedding.port import EmbeddingError

_MOST_STREAMS = 512
_SHOWN = 20
_FEW = 400
"""Events of a quick run."""
_STOPPED = 130


class Only(StrEnum):
    """What is measured by itself, and not with the rest."""

    fairness = "fairness"
    record = "record"
    retrieval = "retrieval"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def stream_counts(text: str) -> list[int]:
    """``1,64,256`` as numbers. Raises typer.BadParameter."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers; give for example 1,64,256") from None
    if wrong := [count for count in counts if not 1 <= count <= _MOST_STREAMS]:
        raise typer.BadParameter(f"{wrong[0]} streams: give 1 to {_MOST_STREAMS}")
    return counts


def buses(text: str | None) -> list[Bus]:
    """``postgres,pulsar`` as buses; None: all that can be measured here, and what cannot is said on standard error.

    Raises typer.BadParameter.
    """
    lacking = f"{' and '.join(missing())}: a broker of its own needs a JDK (17 or newer) and Maven"
    if text is None:
        if not missing():
            return list(Bus)
        typer.echo(f"benches: only the Postgres bus is measured; Pulsar lacks {lacking}", err=True)
        return [Bus.postgres]
    try:
        asked = list(dict.fromkeys(Bus(part.strip()) for part in text.split(",")))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give postgres, pulsar, or postgres,pulsar") from None
    if Bus.pulsar in asked and missing():
        raise typer.BadParameter(f"Pulsar lacks {lacking}")
    return asked


@app.command(
    epilog="Examples:  python -m benches  ·  python -m benches --bus postgres --streams 64 --seconds 5  ·  "
    "python -m benches --json figures.json > tables.md  ·  python -m benches --quick  ·  "
    "python -m benches --only fairness  ·  python -m benches --only record --events 1000000"
)
def bench(
    bus: Annotated[
        str | None,
        typer.Option(help="postgres, pulsar or both, with a comma. None: both where java and mvn are there."),
    ] = None,
    streams: Annotated[str, typer.Option(help="How many streams at a time, one load each.")] = "1,64,256",
    tokens: Annotated[int, typer.Option(min=2, max=10_000, help="Tokens of each stream, 50 a second.")] = 250,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long each load is measured.")] = 10.0,
    events: Annotated[
        int, typer.Option(min=100, max=10_000_000, help="Events that are projected and replayed.")
    ] = 80_000,
    only_quick: Annotated[
        bool, typer.Option("--quick", help="Too little of everything for figures: to see whether it works.")
    ] = False,
    only: Annotated[
        Only | None,
        typer.Option(
            help="By itself: what light tenants wait beside a flood, what becomes of events, with a tenth of them "
            "and with all, or how well collections are searched. Of the other options --bus, --quick and --json count "
            "then, and --events for the record."
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all figures here, too.", dir_okay=False)] = None,
) -> None:
    """Measure a Parley of its own on each bus, beside a direct call of the same scripted backend.

    Tables go to standard output. Everything that was streamed, delivered, projected and rebuilt is compared with what
    it should be; exit 1 where anything is missing or differs.
    """
    counts = stream_counts(streams)
    asked = buses(bus)
    what: Plan | FairnessPlan | RecordPlan | RetrievalPlan
    if only is Only.fairness:
        what = quick_fairness(asked) if only_quick else fairness_plan(asked)
    elif only is Only.retrieval:
        what = RetrievalPlan(knowledge=load().knowledge)
    elif only is Only.record:
        what = record_plan(asked, _FEW if only_quick else events)
    else:
        what = quick(asked) if only_quick else plan(asked, counts, tokens, seconds, events)
    if json is not None and not json.resolve().parent.is_dir():
        raise typer.BadParameter(f"{json.resolve().parent} is not a folder", param_hint="--json")
    target = None if json is None else json.resolve()
    with Board(what.steps) as board, apart() as folder:
        try:
            run = asyncio.run(_until_stopped(what, folder, board))
        except (NotStarted, LoadFailed, CommandError, BusError, DatabaseUnavailable, EmbeddingError) as error:
            board.line(f"benches: {error}")
            raise typer.Exit(1) from None
        except (KeyboardInterrupt, asyncio.CancelledError):
            board.line("benches: stopped, and all that it started")
            raise typer.Exit(_STOPPED) from None
        for line in run.wrong[:_SHOWN]:
            board.line(f"wrong: {line}")
        if len(run.wrong) > _SHOWN:
            board.line(f"wrong: and {len(run.wrong) - _SHOWN} more")
    if target is not None:
        target.write_text(run.model_dump_json(indent=2) + "\n")
    print(_tables(run))
    raise typer.Exit(1 if run.wrong else 0)


def _tables(run: Run | FairnessRun | RecordRun | RetrievalRun) -> str:
    match run:
        case FairnessRun():
            return fairness_markdown(run)
        case RecordRun():
            return record_markdown(run)
        case RetrievalRun():
            return retrieval_markdown(run)
        case _:
            return markdown(run)


async def _until_stopped(
    what: Plan | FairnessPlan | RecordPlan | RetrievalPlan, folder: Path, board: Board
) -> Run | FairnessRun | RecordRun | RetrievalRun:
    """SIGTERM ends it as Ctrl-C does: with all that it started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if isinstance(what, FairnessPlan):
        return await measure_fairness(what, folder, board.step)
    if isinstance(what, RecordPlan):
        return await measure_record_alone(what, folder, board.step)
    if isinstance(what, RetrievalPlan):
        return await measure_retrieval(what, folder, board.step)
    return await measure(what, folder, board.step)


if __name__ == "__main__":
    app()
