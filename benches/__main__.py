"""`python -m benches`: measure a Parley of its own, and print the tables for docs/benchmarks.md."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from benches.board import Board
from benches.load import Load
from benches.parley import NotStarted
from benches.report import markdown
from benches.run import LoadFailed, Run, measure, steps

TOKENS_PER_S = 50
PROMPT_TOKENS = 20
_CLIENTS = (1, 32)
_MOST_STREAMS = 512
_SHOWN = 20

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


def loads(streams: list[int], tokens: int, seconds: float) -> list[Load]:
    """Streams at 50 tokens/s each, then prompts of 20 tokens without delay."""
    paced = [Load(clients=n, tokens=tokens, delay_s=1 / TOKENS_PER_S, seconds=seconds) for n in streams]
    return paced + [Load(clients=n, tokens=PROMPT_TOKENS, delay_s=0, seconds=seconds) for n in _CLIENTS]


def stream_counts(text: str) -> list[int]:
    """``1,64,256`` as numbers. Raises typer.BadParameter."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of numbers; give for example 1,64,256") from None
    if wrong := [count for count in counts if not 1 <= count <= _MOST_STREAMS]:
        raise typer.BadParameter(f"{wrong[0]} streams: give 1 to {_MOST_STREAMS}")
    return counts


@app.command(
    epilog="Examples:  python -m benches  ·  python -m benches --streams 64 --seconds 5  ·  "
    "python -m benches --json figures.json > tables.md"
)
def bench(
    streams: Annotated[str, typer.Option(help="How many streams at a time, one load each.")] = "1,64,256",
    tokens: Annotated[int, typer.Option(min=2, max=10_000, help="Tokens of each stream, 50 a second.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long each load is measured.")] = 10.0,
    json: Annotated[Path | None, typer.Option(help="Write all figures here, too.", dir_okay=False)] = None,
) -> None:
    """Measure a Parley of its own beside a direct call of the same scripted backend. Tables go to standard output.

    Every answer that was streamed is compared with what is stored; exit 1 where one is missing or differs.
    """
    asked = loads(stream_counts(streams), tokens, seconds)
    if json is not None and not json.resolve().parent.is_dir():
        raise typer.BadParameter(f"{json.resolve().parent} is not a folder", param_hint="--json")
    with Board(steps(asked)) as board:
        try:
            run = asyncio.run(_until_stopped(asked, board))
        except (NotStarted, LoadFailed) as error:
            board.line(f"benches: {error}")
            raise typer.Exit(1) from None
        for line in run.wrong[:_SHOWN]:
            board.line(f"wrong: {line}")
        if len(run.wrong) > _SHOWN:
            board.line(f"wrong: and {len(run.wrong) - _SHOWN} more")
    if json is not None:
        json.write_text(run.model_dump_json(indent=2) + "\n")
    print(markdown(run))
    raise typer.Exit(1 if run.wrong else 0)


async def _until_stopped(asked: list[Load], board: Board) -> Run:
    """SIGTERM ends it as Ctrl-C does: with the Parley that it started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await measure(asked, board.step)


if __name__ == "__main__":
    app()
