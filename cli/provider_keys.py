"""Provider keys at the command line, of the platform or of a tenant, through the command API's own handlers."""

from __future__ import annotations

import getpass
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from backplane.ports.database import Row
from backplane.settings import Settings
from backplane.wiring.embedded import completed, role_database
from backplane.wiring.services import command_side
from cli import tenancy
from cli.failures import CommandError
from command_api.admission import Refused
from command_api.provider_keys import Added, AddedBefore, NoSuchProviderKey, ProviderKeys
from command_api.tenancy import OPERATOR
from event_schemas.envelope import PLATFORM
from query_api import sql


def read_secret() -> str:
    """The key: typed unseen at a terminal, else all of standard input. Raises CommandError."""
    try:
        return (getpass.getpass("provider key: ") if sys.stdin.isatty() else sys.stdin.read()).strip()
    except UnicodeDecodeError:
        raise CommandError("what came on standard input is no text, so it is no key") from None


async def add(settings: Settings, tenant: str | None, pool: str, secret: str, name: str) -> Added:
    """Raises CommandError where the tenant is not there, or the key cannot be used."""
    owner = await _owner(settings, tenant)
    async with _provider_keys(settings) as keys:
        try:
            return await keys.add(owner, pool, secret, name, actor=OPERATOR)
        except (Refused, AddedBefore) as error:
            raise CommandError(str(error)) from None
        except ValueError:
            raise CommandError("that cannot be the key's name: use at most 200 characters") from None


async def live(settings: Settings, tenant: str | None) -> list[Row]:
    """Those that are not retired. Raises CommandError where the tenant is not there."""
    owner = await _owner(settings, tenant)
    database = role_database(settings, "query_api")
    try:
        async with database.tenant(owner) as session:
            return await sql.provider_keys(session)
    finally:
        await database.close()


async def retire(settings: Settings, tenant: str | None, key_id: UUID) -> bool:
    """False if it was retired already. Raises CommandError where it, or the tenant, is not there."""
    owner = await _owner(settings, tenant)
    async with _provider_keys(settings) as keys:
        try:
            return await keys.retire(owner, key_id, actor=OPERATOR)
        except NoSuchProviderKey as error:
            raise CommandError(f"{error} of {tenant or 'the platform'}") from None


async def _owner(settings: Settings, tenant: str | None) -> UUID:
    return PLATFORM if tenant is None else await tenancy.find_tenant(settings, tenant)


@asynccontextmanager
async def _provider_keys(settings: Settings) -> AsyncIterator[ProviderKeys]:
    async with command_side(completed(settings)) as side:
        yield ProviderKeys(side.database, side.signals, side.master_key, settings.pools)
