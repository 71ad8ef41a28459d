"""`parley batch …`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import command

commands = typer.Typer(no_args_is_help=True, help="Files of prompts that run in idle time.")

_Url = Annotated[str | None, typer.Option(envvar="PARLEY_URL", help="Where Parley is; none: this machine.")]
_Key = Annotated[str | None, typer.Option(help="API key; none: PARLEY_API_KEY, else <data folder>/admin.key.")]
_Batch = Annotated[str, typer.Argument(help="The batch's id.")]


@commands.command(epilog="Example:  parley batch submit questions.jsonl --wait")
def submit(
    file: Annotated[Path, typer.Argument(help="JSON Lines, as OpenAI's batches have them.")],
    wait: Annotated[bool, typer.Option("--wait", help="Show its progress until it has ended.")] = False,
    metadata: Annotated[list[str] | None, typer.Option(help="name=value, kept with it; may be repeated.")] = None,
    url: _Url = None,
    key: _Key = None,
) -> None:
    """Submit a batch, and print it as JSON: as it was accepted, or with --wait as it ended."""
    from cli import batches
    from cli.board import Board

    with batches.client(url, key) as client:
        batch = client.submit(file, _pairs(metadata or []))
        if wait:
            with Board(on=sys.stderr) as board:
                batch = client.wait(batch["id"], board)
    command.print_json(batch)


@commands.command("list")
def list_batches(url: _Url = None, key: _Key = None) -> None:
    """All batches, the newest first, one JSON object a line."""
    from cli import batches

    with batches.client(url, key) as client:
        for batch in client.all():
            command.print_json(batch)


@commands.command()
def show(batch: _Batch, url: _Url = None, key: _Key = None) -> None:
    """How one goes, as JSON."""
    from cli import batches

    with batches.client(url, key) as client:
        command.print_json(client.show(batch))


@commands.command(epilog="Example:  parley batch results 01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d16 > answers.jsonl")
def results(
    batch: _Batch,
    errors: Annotated[bool, typer.Option("--errors", help="The lines without an answer instead.")] = False,
    url: _Url = None,
    key: _Key = None,
) -> None:
    """Write the answers so far to standard output, one JSON object a line."""
    from cli import batches

    with batches.client(url, key) as client:
        for piece in client.lines(batch, "errors" if errors else "results"):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


@commands.command()
def cancel(batch: _Batch, url: _Url = None, key: _Key = None) -> None:
    """Begin no line of it any more, and stop those that run."""
    from cli import batches

    with batches.client(url, key) as client:
        client.change("POST", f"{batch}/cancel")
    command.say("it will stop; its answers stay")


@commands.command()
def delete(batch: _Batch, url: _Url = None, key: _Key = None) -> None:
    """Delete one that has ended, and erase what its lines said and were answered."""
    from cli import batches

    with batches.client(url, key) as client:
        client.change("DELETE", batch)
    command.say("deleted")


def _pairs(given: list[str]) -> dict[str, str]:
    from cli.failures import CommandError

    pairs = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise CommandError(f"--metadata {one!r}: give name=value")
        pairs[name] = value
    return pairs
