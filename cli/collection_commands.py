"""`parley collection …`."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from cli import command

commands = typer.Typer(no_args_is_help=True, help="Collections of documents.")


_EXAMPLE = "Example:  parley collection reindex 01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d20 --tenant acme"


@commands.command("reindex", epilog=_EXAMPLE)
def reindex(
    collection: Annotated[UUID, typer.Argument(help="Its id.")],
    tenant: Annotated[str, typer.Option(help="Name or id.")],
) -> None:
    """Have a collection's chunks made anew from the kept files, as after its embedder's model was changed.

    A running Parley does it. Until a document is done, what was made of it before is found.
    """
    from cli import knowledge

    number = command.run(lambda settings: knowledge.reindex(settings, tenant, collection))
    command.say(f"{number} documents are queued")
