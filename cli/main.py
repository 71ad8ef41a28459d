"""The command line. Each command imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import (
    audit,
    batch_commands,
    collection_commands,
    limit_commands,
    operators,
    persona_commands,
    pulsar,
    record,
    services,
)

_OPERATIONS = "Operations"


class CommandLine(typer.Typer):
    """Expected errors are one line on standard error and an exit code; anything else is a bug with its traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except BrokenPipeError:
            sys.stderr.close()
            raise SystemExit(1) from None
        except Exception as error:
            raise SystemExit(_told(error)) from None


def _told(error: Exception) -> int:
    """Say what went wrong in one line; returns the exit code. Raises what is a bug again."""
    from cli.failures import CommandError

    code = error.exit_code if isinstance(error, CommandError) else None
    if code is None:
        from cli.exit_codes import EXPECTED, exit_code

        if not isinstance(error, EXPECTED):
            raise error
        code = exit_code(error)
    print(f"parley: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
    return code


app = CommandLine(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Turns prompts into answers, and keeps the record of it.",
    epilog='Begin with:  parley up   and in another terminal:  parley chat "Why is the sky blue?"',
)
app.add_typer(batch_commands.commands, name="batch")
app.add_typer(operators.tenants, name="tenant", rich_help_panel=_OPERATIONS)
app.add_typer(operators.keys, name="key", rich_help_panel=_OPERATIONS)
app.add_typer(limit_commands.commands, name="limits", rich_help_panel=_OPERATIONS)
app.add_typer(persona_commands.commands, name="persona", rich_help_panel=_OPERATIONS)
app.add_typer(collection_commands.commands, name="collection", rich_help_panel=_OPERATIONS)
app.add_typer(operators.provider_keys, name="provider-key", rich_help_panel=_OPERATIONS)
app.add_typer(operators.dead_letter_commands, name="dlq", rich_help_panel=_OPERATIONS)
app.add_typer(audit.commands, name="audit", rich_help_panel=_OPERATIONS)
app.add_typer(record.commands, name="record", rich_help_panel=_OPERATIONS)
app.add_typer(pulsar.commands, name="pulsar", rich_help_panel=_OPERATIONS)


@app.command(epilog="Example:  PARLEY_PORT=9000 PARLEY_DATA_DIR=/srv/parley parley up")
def up() -> None:
    """Start everything on this machine, until Ctrl-C.

    Servers that no URL names are embedded: Postgres and Valkey keep their data in the data folder. The first start
    makes a tenant and an admin key, kept in <data folder>/admin.key.
    """
    from cli import configuration
    from cli.up import run

    run(configuration.load(), configuration.load_llm())


@app.command(
    epilog='Examples:  parley chat "Why is the sky blue?"  ·  parley chat -c "And at dusk?"  ·  parley chat < question'
)
def chat(
    text: Annotated[list[str] | None, typer.Argument(help="What to ask; none: read from standard input.")] = None,
    go_on: Annotated[bool, typer.Option("-c", "--continue", help="Go on with the last conversation.")] = False,
    model: Annotated[str | None, typer.Option(help="Which model answers; none: the server's first.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    url: Annotated[str | None, typer.Option(envvar="PARLEY_URL", help="Where Parley is; none: this machine.")] = None,
    key: Annotated[
        str | None, typer.Option(help="API key; none: PARLEY_API_KEY, else <data folder>/admin.key.")
    ] = None,
) -> None:
    """Ask a running Parley, and see the answer as it is written. Ctrl-C stops the answer.

    On a terminal the answer appears piece by piece; elsewhere it is written whole, once it is complete.
    """
    from cli.talk import talk

    raise typer.Exit(talk(" ".join(text or ()), go_on=go_on, model=model, system=system, url=url, key=key))


@app.command(rich_help_panel=_OPERATIONS, epilog="Example:  parley doctor | grep -v ^ok")
def doctor() -> None:
    """Check settings, servers, model and machine: what is wrong, and what to do about it. Exit 1 where something is."""
    from cli.doctor import run

    raise typer.Exit(run())


@app.command(rich_help_panel=_OPERATIONS)
def migrate() -> None:
    """Bring the database to this release's schema."""
    from backplane.wiring import operations
    from cli import command

    before, after = command.run(operations.set_up, migrated=False)
    print(f"{after}: nothing to do" if before == after else f"migrated from {before or 'nothing'} to {after}")


@app.command(rich_help_panel=_OPERATIONS, epilog="Examples:  parley rebuild messages  ·  parley rebuild all --check")
def rebuild(
    model: Annotated[str, typer.Argument(help="The read model's name, or `all`.")],
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only compare every row with what is live; exit 1 if one differs. Apart is ciphertext that was cut"
            " off: of it, the hash in its place is compared. Rows that are marked as erased, or were cut, are counted.",
        ),
    ] = False,
    from_bus: Annotated[
        bool,
        typer.Option(
            "--from-bus",
            help="With --check: fold what the bus holds, in the order of the record. Refused where the bus has dropped"
            " lines of the record; for event_log there is `parley record compare`.",
        ),
    ] = False,
) -> None:
    """Replay the record into fresh tables and swap them in, or prove that they equal the live ones."""
    from cli import command, rebuilding

    raise typer.Exit(command.run(lambda settings: rebuilding.run(settings, model, check=check, from_bus=from_bus)))


@app.command("secrets", rich_help_panel=_OPERATIONS, epilog="Example:  parley secrets && docker compose up --detach")
def make_secrets(
    folder: Annotated[Path, typer.Option(help="Where they are written, one a file.")] = Path("deploy/secrets"),
    postgres: Annotated[str, typer.Option(help="Where Postgres will be, and the database.")] = "postgres:5432/parley",
    redis: Annotated[str, typer.Option(help="Where Redis will be.")] = "redis:6379",
) -> None:
    """Make the passwords, keys and tokens of a cluster, as files that only their owner can read.

    What is there is never written over. Files that are called as a setting's variable are read by services whose
    PARLEY_SECRETS_DIR names their folder.
    """
    from cli import command, secret_files

    for name in secret_files.write(folder, postgres, redis):
        print(folder / name)
    owner, container = folder.stat().st_uid, secret_files.CONTAINER_UID
    if owner == 0:
        command.say(f"they belong to root, and no container runs as root: chown -R {container} {folder}")
    elif owner != container:
        command.say(f"they belong to account {owner}: put PARLEY_UID={owner} into .env for docker compose")


@app.command(rich_help_panel=_OPERATIONS)
def recover() -> None:
    """After Postgres was restored or the bus was lost: put what was accepted and has not ended on its way again.

    Needs running projections. Repeatable; what runs or has ended is not run twice.
    """
    from cli import command, recovering

    command.run(recovering.run)


@app.command(rich_help_panel=_OPERATIONS)
def schemas(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if files and code disagree.")] = False,
) -> None:
    """Write the JSON Schemas of commands and events, or check that the published ones still hold."""
    from cli.failures import CommandError
    from event_schemas import schemas as published

    if check:
        wrong = published.differences()
        for line in wrong:
            print(line, file=sys.stderr)
        raise typer.Exit(1 if wrong else 0)
    try:
        changed = published.write()
    except ValueError as error:
        raise CommandError(str(error)) from None
    for name in changed:
        print(f"wrote {name}")


for service in services.app.registered_commands:
    app.registered_commands.append(service)


if __name__ == "__main__":
    app()
