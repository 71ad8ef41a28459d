"""`parley tenant`, `parley key`, `parley provider-key` and `parley dlq`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from backplane.settings import Settings
from cli import command

if TYPE_CHECKING:
    from command_api.dead_letters import DeadLetterBox

tenants = typer.Typer(no_args_is_help=True, help="Tenants.")
keys = typer.Typer(no_args_is_help=True, help="API keys.")
provider_keys = typer.Typer(no_args_is_help=True, help="Provider keys that are added without a restart.")
dead_letter_commands = typer.Typer(no_args_is_help=True, help="Messages that could not be handled.")


class Role(StrEnum):
    owner = "owner"
    admin = "admin"
    member = "member"
    auditor = "auditor"
    platform = "platform"


class Priority(StrEnum):
    low = "low"
    normal = "normal"
    high = "high"


@asynccontextmanager
async def _box(settings: Settings) -> AsyncIterator[DeadLetterBox]:
    from backplane.wiring.operations import operator_bus, topics
    from cli.failures import CommandError, TryAgain
    from command_api.dead_letters import CannotReplay, DeadLetterBox, HeldElsewhere, NoSuchLetter
    from event_schemas.topics import dead_letters

    async with operator_bus(settings) as bus:
        try:
            yield DeadLetterBox(bus, [dead_letters(topic) for topic in topics(settings)])
        except NoSuchLetter as error:
            raise CommandError(f"{error}; `parley dlq list` names those there are") from None
        except CannotReplay as error:
            raise CommandError(str(error)) from None
        except HeldElsewhere as error:
            raise TryAgain(str(error)) from None


@tenants.command("create", epilog="Example:  parley key issue --tenant $(parley tenant create acme) --role admin")
def create_tenant(name: Annotated[str, typer.Argument(help="Unique among tenants, 1 to 200 characters.")]) -> None:
    """Make a tenant and print its id."""

    async def create(settings: Settings) -> str:
        from cli import tenancy

        return str(await tenancy.create_tenant(settings, name))

    print(command.run(create))
    command.say(f"next: parley key issue --tenant {name!r} --role admin")


@tenants.command("share", epilog="Example:  parley tenant share acme --weight 3 --priority high")
def share(
    tenant: Annotated[str, typer.Argument(help="The tenant's name or id.")],
    weight: Annotated[
        int | None, typer.Option(min=1, max=100, help="Its part of a busy pool's tokens, beside others' weights.")
    ] = None,
    priority: Annotated[Priority | None, typer.Option(help="A higher one goes first, in nine of ten turns.")] = None,
) -> None:
    """What a tenant gets of a pool while more waits than can run; shows it, with what is given changed."""

    async def set_share(settings: Settings) -> dict[str, object]:
        from cli import tenancy

        tenant_id = await tenancy.find_tenant(settings, tenant)
        found = await tenancy.set_share(settings, tenant_id, weight, None if priority is None else priority.value)
        return found.model_dump()

    command.print_json(command.run(set_share))


@tenants.command("content", epilog="Example:  parley tenant content acme --days 90")
def content(
    tenant: Annotated[str, typer.Argument(help="The tenant's name or id.")],
    keep: Annotated[
        bool | None,
        typer.Option("--keep/--keep-none", help="Whether what is written from now on outlives its generation."),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option(min=0, max=36_500, help="Days until a conversation nobody writes in is erased; 0: never."),
    ] = None,
) -> None:
    """For how long what a tenant's people write is kept; shows it, with what is given changed."""

    async def set_content_policy(settings: Settings) -> dict[str, object]:
        from cli import tenancy

        tenant_id = await tenancy.find_tenant(settings, tenant)
        return (await tenancy.set_content_policy(settings, tenant_id, keep, days)).model_dump()

    command.print_json(command.run(set_content_policy))


_Tenant = Annotated[str, typer.Argument(help="The tenant's name or id.")]


@tenants.command("suspend", epilog="Example:  parley tenant suspend acme")
def suspend_tenant(tenant: _Tenant) -> None:
    """Let nobody of a tenant in, at once and everywhere, until it is resumed."""

    async def suspend(settings: Settings) -> bool:
        from cli import tenancy

        return await tenancy.suspend_tenant(settings, await tenancy.find_tenant(settings, tenant))

    command.say("suspended" if command.run(suspend) else "it was suspended already")


@tenants.command("resume")
def resume_tenant(tenant: _Tenant) -> None:
    """Let a suspended tenant in again."""

    async def resume(settings: Settings) -> bool:
        from cli import tenancy

        return await tenancy.resume_tenant(settings, await tenancy.find_tenant(settings, tenant))

    command.say("resumed" if command.run(resume) else "it was not suspended")


@keys.command("issue", epilog="Example:  parley key issue --tenant acme --role member --user ada --expires-days 90")
def issue_key(
    tenant: Annotated[str, typer.Option(help="The tenant's name or id.")] = "default",
    role: Annotated[Role, typer.Option(help="What the key may do; `platform` with --tenant platform.")] = Role.member,
    name: Annotated[str, typer.Option(help="A label for people.")] = "",
    user: Annotated[str | None, typer.Option(help="Whose key it is; made, with that role, if need be.")] = None,
    expires_days: Annotated[int | None, typer.Option(min=1, help="Days that it is valid; none: no end.")] = None,
) -> None:
    """Make an API key and print it, this once."""

    async def issue(settings: Settings) -> str:
        from cli import tenancy

        tenant_id = await tenancy.find_tenant(settings, tenant)
        expires_at = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)
        return await tenancy.issue_key(settings, tenant_id, role.value, name=name, user=user, expires_at=expires_at)

    print(command.run(issue))
    command.say("keep it: it cannot be shown again")


@keys.command("revoke", epilog="Example:  parley key revoke parley_0123456789abcdef")
def revoke_key(key: Annotated[str, typer.Argument(help="The key, or its public part `parley_<16 digits>`.")]) -> None:
    """Revoke an API key, at once and everywhere."""

    async def revoke(settings: Settings) -> bool:
        from cli import tenancy

        return await tenancy.revoke_key(settings, key)

    command.say("revoked" if command.run(revoke) else "it was revoked already")


_Owner = Annotated[str | None, typer.Option("--tenant", help="Whose key; none: the platform's, for all tenants.")]


@provider_keys.command("add", epilog="Example:  parley provider-key add --pool cloud < key-file")
def add_provider_key(
    pool: Annotated[str, typer.Option(help="The pool that it is for, as in the settings.")],
    tenant: _Owner = None,
    name: Annotated[str, typer.Option(help="A label for people.")] = "",
) -> None:
    """Add a provider key, read from standard input or typed unseen, and print its id. It is stored encrypted."""
    from cli import provider_keys as handlers

    secret = handlers.read_secret()
    print(command.run(lambda settings: handlers.add(settings, tenant, pool, secret, name)).id)
    command.say("workers use it within 5 s")


@provider_keys.command("list")
def list_provider_keys(tenant: _Owner = None) -> None:
    """Those in use that were added so, one JSON object a line. What the keys are is shown to nobody."""
    from cli import provider_keys as handlers

    for one in command.run(lambda settings: handlers.live(settings, tenant)):
        command.print_json(one)


@provider_keys.command("retire")
def retire_provider_key(
    key_id: Annotated[UUID, typer.Argument(metavar="ID", help="As `parley provider-key list` names it.")],
    tenant: _Owner = None,
) -> None:
    """Ask nothing new with a key, and forget it. What is asked already goes on."""
    from cli import provider_keys as handlers

    retired = command.run(lambda settings: handlers.retire(settings, tenant, key_id))
    command.say("retired; workers stop using it within 5 s" if retired else "it was retired already")


@dead_letter_commands.command("list", epilog="Example:  parley dlq list | jq -r .id")
def list_dead_letters() -> None:
    """Everything that waits for an operator, one JSON object a line."""

    async def waiting(settings: Settings) -> None:
        async with _box(settings) as box:
            letters = await box.waiting()
        for letter in letters:
            about = letter.about()
            envelope = about.pop("envelope") or {}
            command.print_json(about | {name: envelope.get(name) for name in ("type", "subject", "tenantid", "time")})
        command.say(f"{len(letters)} dead letters")

    command.run(waiting)


_Id = Annotated[str, typer.Argument(help="As `parley dlq list` names it.")]


@dead_letter_commands.command("show")
def show_dead_letter(
    letter: _Id, content: Annotated[bool, typer.Option("--content", help="Also what people wrote.")] = False
) -> None:
    """All that is known of one."""

    async def show(settings: Settings) -> None:
        async with _box(settings) as box:
            command.print_json((await box.find(letter)).about(content=content))

    command.run(show)


@dead_letter_commands.command("discard")
def discard_dead_letter(letter: _Id) -> None:
    """Take one off the list for ever."""

    async def discard(settings: Settings) -> None:
        async with _box(settings) as box:
            await box.discard(letter)

    command.run(discard)
    command.say(f"discarded {letter}")


@dead_letter_commands.command("replay")
def replay_dead_letter(letter: _Id) -> None:
    """Publish one again where it came from; a prompt becomes a new generation. Prints its subject."""

    async def replay(settings: Settings) -> str:
        async with _box(settings) as box:
            return await box.replay(letter)

    print(command.run(replay))
