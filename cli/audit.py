"""`parley audit`: exports of the record, and whether they are what was signed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from backplane.settings import Settings
from cli import command

if TYPE_CHECKING:
    from backplane.security.checkpoint import Checkpoint

commands = typer.Typer(no_args_is_help=True, help="Proofs of the record.")

_STEP = 0.01
"""Share of a file after which the bar moves on."""

_Tenant = Annotated[str, typer.Option("--tenant", help="The tenant's name or id.")]


@commands.command("key")
def show_key() -> None:
    """Print the public key that checkpoints are verified with. Give it to auditors."""
    from backplane.wiring.embedded import completed
    from backplane.wiring.services import signing_key
    from cli import configuration

    print(signing_key(completed(configuration.load())).public)


@commands.command("export", epilog="Example:  parley audit export --tenant acme > acme.ndjson")
def export(tenant: _Tenant) -> None:
    """Write a tenant's record with its proofs, as NDJSON, up to the newest line that is signed."""
    from cli import audit_export

    last = command.run(lambda settings: audit_export.write(settings, tenant, sys.stdout.buffer))
    command.say(
        f"exported up to line {last}, the newest that is signed; later lines follow once they are"
        " (record.checkpoint_s). Check it with: parley audit verify FILE --key $(parley audit key)"
    )


@commands.command("checkpoints", epilog="Example:  parley audit checkpoints >> /mnt/write-once/checkpoints.ndjson")
def show_checkpoints(
    tenant: Annotated[str | None, typer.Option("--tenant", help="The tenant's name or id; none: all.")] = None,
) -> None:
    """Print checkpoints, oldest first, one JSON object a line. Keep them where nobody can change them."""
    from cli import audit_export

    async def show(settings: Settings) -> None:
        async for one in audit_export.checkpoints(settings, tenant):
            print(one)

    command.run(show)


@commands.command("verify", epilog="Example:  parley audit verify acme.ndjson --key 0a1b…  --checkpoint kept.ndjson")
def verify(
    file: Annotated[Path, typer.Argument(help="An export; `-` reads standard input.")],
    key: Annotated[list[str], typer.Option("--key", help="A public key to trust, as `parley audit key` prints it.")],
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Checkpoints that were published elsewhere, as NDJSON.")
    ] = None,
) -> None:
    """Verify an export without settings or servers. Exit 1, naming the first wrong line, where it was tampered with.

    Without --checkpoint nobody can tell a whole record from one whose tail was cut off at an earlier checkpoint.
    """
    from backplane.security import proof
    from backplane.security.export import NotOfAnExport
    from cli.failures import CommandError

    published = [] if checkpoint is None else _published(checkpoint)
    with ExitStack() as stack:
        stream: BinaryIO = sys.stdin.buffer if str(file) == "-" else stack.enter_context(file.open("rb"))
        try:
            proved = proof.verify(_watched(stream, file, stack), _keys(key), published)
        except (NotOfAnExport, proof.Tampered) as error:
            raise CommandError(f"{file}: {error}") from None
    told = f"; {proved.published} that were published elsewhere agree" if published else ""
    if published and not proved.published:
        raise CommandError(f"{file}: the lines of all published checkpoints were pruned, so none could be compared")
    print(
        f"verified: tenant {proved.header.tenant_id}, lines {proved.first} to {proved.header.to},"
        f" {proved.checkpoints} checkpoints{told}; last signed at {proved.signed_at.isoformat(timespec='seconds')}"
    )


def _watched(stream: BinaryIO, file: Path, stack: ExitStack) -> Iterator[bytes]:
    """The lines of ``stream``; on a terminal, with a bar of how much of ``file`` was read."""
    from cli.board import Board

    board = stack.enter_context(Board(plain_progress=False, on=sys.stderr))
    size, read, shown = file.stat().st_size if file.is_file() else 0, 0, 0.0
    for line in stream:
        yield line
        read += len(line)
        if size and (share := read / size) >= shown + _STEP:
            board.progress(str(file), "verifying", shown := share)


def _keys(given: list[str]) -> set[str]:
    import re

    from cli.failures import CommandError

    for each in given:
        if not re.fullmatch("[0-9a-fA-F]{64}", each):
            raise CommandError(
                f"--key {each!r}: a public key is 64 hexadecimal digits, as `parley audit key` prints it"
            )
    return {each.lower() for each in given}


def _published(file: Path) -> list[Checkpoint]:
    import orjson

    from backplane.security.checkpoint import Checkpoint
    from cli.failures import CommandError

    found = []
    with file.open("rb") as lines:
        for place, raw in enumerate(lines, 1):
            try:
                found.append(Checkpoint.parse(orjson.loads(raw)))
            except ValueError:
                raise CommandError(
                    f"{file}: line {place} is no checkpoint, as `parley audit checkpoints` prints them"
                ) from None
    if not found:
        raise CommandError(f"{file}: holds no checkpoint")
    return found
