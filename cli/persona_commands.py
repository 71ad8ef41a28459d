"""`parley persona …`."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from backplane.settings import Settings
from cli import command

commands = typer.Typer(no_args_is_help=True, help="Named, versioned prompts with their settings.")


class Format(StrEnum):
    json = "json"
    yaml = "yaml"


_Tenant = Annotated[str, typer.Option(help="Name or id of the tenant.")]
_Name = Annotated[str, typer.Argument(help="The persona's name.")]
_Version = Annotated[int | None, typer.Option(min=1, help="Which version; none: the newest.")]
_FIRST = "default"


@commands.command("list", epilog="Example:  parley persona list --tenant acme | jq -r .name")
def list_personas(tenant: _Tenant = _FIRST) -> None:
    """The newest version of each, one JSON object a line."""
    from cli import personas as handlers

    for one in command.run(lambda settings: handlers.found(settings, tenant)):
        command.print_json(one.model_dump(mode="json"))


@commands.command("show", epilog="Example:  parley persona show translator --version 2")
def show_persona(name: _Name, version: _Version = None, tenant: _Tenant = _FIRST) -> None:
    """All that a version says, as JSON."""
    from cli import personas as handlers

    command.print_json(command.run(lambda settings: handlers.definition(settings, tenant, name, version)).as_given())


@commands.command("save", epilog="Example:  parley persona save personas/translator.yaml --tenant acme")
def save_persona(
    file: Annotated[Path, typer.Argument(help="JSON or YAML; older prompt and personality files, too.")],
    name: Annotated[str | None, typer.Option(help="Its name; none: as the file says, or is called.")] = None,
    tenant: _Tenant = _FIRST,
) -> None:
    """Save a persona, or a new version of it, from a file. Prints its name and version."""
    from cli import personas as handlers

    loaded = command.run(lambda settings: handlers.save(settings, tenant, file, name))
    assert loaded.saved is not None
    for line in loaded.lines():
        command.say(line)
    print(f"{loaded.saved.ref.name}@{loaded.saved.ref.version}")


@commands.command("export", epilog="Example:  parley persona export translator --format yaml > translator.yaml")
def export_persona(
    name: _Name,
    version: _Version = None,
    format: Annotated[Format, typer.Option(help="Of the file.")] = Format.json,
    tenant: _Tenant = _FIRST,
) -> None:
    """Write a persona as one file, which `parley persona save` takes."""
    from cli import personas as handlers
    from query_api import persona_export

    content = command.run(lambda settings: handlers.definition(settings, tenant, name, version))
    written = persona_export.as_json if format == Format.json else persona_export.as_yaml
    print(written(name, content), end="")


@commands.command("load", epilog="Example:  parley persona load personas --tenant acme")
def load_personas(
    folder: Annotated[Path, typer.Argument(help="Its .json, .yaml and .yml files are read.")],
    tenant: _Tenant = _FIRST,
) -> None:
    """Save each file of a folder that changed since it was last saved from a file. Exit 1 where one is unusable."""
    from cli import personas as handlers

    loaded = command.run(lambda settings: handlers.load(settings, tenant, folder))
    for one in loaded:
        for line in one.lines():
            command.say(line)
    raise typer.Exit(1 if any(one.problem for one in loaded) else 0)


@commands.command("remove", epilog="Example:  parley persona remove translator")
def remove_persona(name: _Name, tenant: _Tenant = _FIRST) -> None:
    """Nobody asks as it any more, and nobody can read what its versions said."""
    from cli import personas as handlers

    command.run(lambda settings: handlers.remove(settings, tenant, name))
    command.say(f"removed {name}")


@commands.command(
    "preview", epilog="Example:  parley persona preview personas/translator.yaml --variable language=French"
)
def preview_persona(
    persona: Annotated[str, typer.Argument(help="A file, or the name of one that is saved.")],
    variable: Annotated[list[str] | None, typer.Option(help="name=value; others get samples.")] = None,
    said: Annotated[str | None, typer.Option("--input", help="What a user writes; none: a sample.")] = None,
    version: _Version = None,
    tenant: _Tenant = _FIRST,
) -> None:
    """What the first prompt of a conversation would say to the model, and its tokens. No model is asked."""
    from cli import personas as handlers

    async def shown(settings: Settings) -> str:
        if Path(persona).suffix in handlers.SUFFIXES:
            content = handlers.of_file(Path(persona)).definition.content()
        else:
            content = await handlers.definition(settings, tenant, persona, version)
        found = await handlers.previewed(settings, content, variable or [], said)
        for message in found.messages:
            print(f"{message.role}:\n{message.text}\n")
        made_up = f"; made up: {json.dumps(found.samples, ensure_ascii=False)}" if found.samples else ""
        counted = "counted by its vocabulary" if found.counted_by == "model" else "an estimate"
        return f"{found.tokens} tokens for {found.model}, {counted}{made_up}"

    command.say(command.run(shown))
