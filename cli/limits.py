"""Limits at the command line, through the command API's own handlers."""

from __future__ import annotations

from uuid import UUID

from pydantic import ValidationError

from backplane.ports.budget import BudgetUnavailable, Scope
from backplane.settings import Settings
from backplane.wiring.embedded import completed
from backplane.wiring.services import command_side
from cli import tenancy
from cli.failures import CommandError
from command_api.limits import Limited, NoSuchSubject, limits_of, set_limits
from command_api.tenancy import OPERATOR
from event_schemas.envelope import PLATFORM
from event_schemas.limits import Dimension, Limits

_NAMED: tuple[Dimension, ...] = ("user", "key", "model", "persona")


async def put(
    settings: Settings, tenant: str | None, dimension: Dimension | None, subject: str, **given: int | str | None
) -> Scope:
    """Set all limits of a subject: of a tenant, of what is its own, or of the platform. Raises CommandError."""
    owner = await _owner(settings, tenant)
    chosen: Dimension = dimension or ("platform" if tenant is None else "tenant")
    if chosen in _NAMED and not subject:
        raise CommandError(f"say which {chosen}: give --subject")
    if chosen not in _NAMED and subject:
        raise CommandError(f"the dimension {chosen} has no --subject")
    if tenant is None and chosen not in ("platform", "model"):
        raise CommandError(f"limits of a {chosen} are a tenant's: give --tenant")
    if tenant is not None and chosen == "platform":
        raise CommandError("limits of the platform are no tenant's: leave out --tenant")
    try:
        limits = Limits.model_validate(given)
    except ValidationError as error:
        wrong = error.errors()[0]
        option = str(wrong["loc"][0]).replace("_", "-")
        raise CommandError(f"--{option}: {wrong['msg'].lower()}") from None
    scope = Scope(chosen, owner, subject)
    async with command_side(completed(settings)) as side:
        try:
            await set_limits(side.database, side.signals, scope, limits, actor=OPERATOR)
        except NoSuchSubject:
            raise CommandError(f"the tenant has no {chosen} {subject!r}") from None
    return scope


async def found(settings: Settings, tenant: str | None) -> list[Limited]:
    """Those of a tenant and of what is its own, or those of the platform. Raises CommandError."""
    owner = await _owner(settings, tenant)
    async with command_side(completed(settings)) as side:
        try:
            return await limits_of(side.database, side.budget, owner)
        except BudgetUnavailable as error:
            raise CommandError(f"{error}; is Parley running?") from None


async def _owner(settings: Settings, tenant: str | None) -> UUID:
    return PLATFORM if tenant is None else await tenancy.find_tenant(settings, tenant)
