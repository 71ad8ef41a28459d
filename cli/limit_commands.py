"""`parley limits …`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cli import command

commands = typer.Typer(no_args_is_help=True, help="How much may be asked, and what it may cost.")


class Subject(StrEnum):
    platform = "platform"
    tenant = "tenant"
    user = "user"
    key = "key"
    model = "model"
    persona = "persona"


_Tenant = Annotated[str | None, typer.Option(help="Name or id; none: the platform, all tenants together.")]


@commands.command(
    "set", epilog="Examples:  parley limits set --tenant acme --usd-per-month 500  ·  parley limits set --tenant acme"
)
def set_limits(
    tenant: _Tenant = None,
    of: Annotated[Subject | None, typer.Option(help="What is limited; none: the tenant, or the platform.")] = None,
    subject: Annotated[str, typer.Option(help="Which user or key (its id), model or persona (its name).")] = "",
    requests_per_minute: Annotated[int | None, typer.Option(help="Prompts in any minute.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Of prompts and answers, in any minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Generations that have not ended.")] = None,
    usd_per_day: Annotated[str | None, typer.Option(help="US dollars a day, UTC.")] = None,
    usd_per_month: Annotated[str | None, typer.Option(help="US dollars a month, UTC.")] = None,
    warn_at_percent: Annotated[int | None, typer.Option(help="A warning is due once so much is used.")] = None,
) -> None:
    """Set all limits of a subject. What is left out has none: without any option, all are taken away."""
    from cli import limits as handlers

    scope = command.run(
        lambda settings: handlers.put(
            settings,
            tenant,
            None if of is None else of.value,
            subject,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            concurrent=concurrent,
            usd_per_day=usd_per_day,
            usd_per_month=usd_per_month,
            warn_at_percent=warn_at_percent,
        )
    )
    command.say(f"these are the limits of the {scope.dimension} {scope.subject_id}".rstrip())


@commands.command("list")
def list_limits(tenant: _Tenant = None) -> None:
    """Those that are set, with what was used and is reserved, one JSON object a line."""
    from cli import limits as handlers
    from command_api.limits_routes import SubjectLimits

    for one in command.run(lambda settings: handlers.found(settings, tenant)):
        command.print_json(SubjectLimits.of(one).model_dump(mode="json"))
