"""One running Parley for all tests of the APIs, and whoever is to call it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import pytest

from backplane.ports.identifiers import new_id
from backplane.settings import Settings
from cli import tenancy
from event_schemas.control_plane import KeyRole
from tests.e2e.client import Client
from tests.e2e.running import Up

SLOTS = 4
KEYED = "cloud"
"""A pool that takes provider keys; there is no provider behind it."""
SMALL, SMALL_WINDOW = "small", 60
"""A pool, and its model, whose window has so many words. It makes titles."""
ORIGIN = "https://app.example.com"


def parley_for_all(folder: Path) -> Up:
    """One with a pool of each kind that the API tells apart; not started yet."""
    return Up(
        folder / "api",
        PARLEY_POOLS=json.dumps(
            {
                "local": {"backend": "scripted", "models": ["script"], "slots": SLOTS},
                SMALL: {
                    "backend": "scripted",
                    "models": [SMALL],
                    "slots": SLOTS,
                    "context_window": SMALL_WINDOW,
                    "answer_tokens": 10,
                    "titles": True,
                },
                KEYED: {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "models": ["nobody-asks"]},
                "openai": {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "models": ["nobody-asks-either"]},
            }
        ),
        PARLEY_REFUSALS_WINDOW_S="0.5",
        PARLEY_CORS_ORIGINS=json.dumps([ORIGIN]),
        PARLEY_WEBHOOKS__ALLOW_PRIVATE="true",
        PARLEY_SOURCES__ALLOW_PRIVATE="true",
    )


@pytest.fixture(scope="session")
def parley(short_folder: Path) -> Iterator[Up]:
    """Shared by all tests of the APIs (see tests/scheduling.py), so that it starts once."""
    up = parley_for_all(short_folder)
    with up.serving():
        yield up


class Callers:
    """Makes callers of the running Parley: tenants, users and keys as an operator makes them."""

    def __init__(self, parley: Up, open_clients: AsyncExitStack) -> None:
        self._url = parley.url
        self._settings = Settings(data_dir=parley.data)
        self._open = open_clients

    async def tenant(self) -> UUID:
        return await tenancy.create_tenant(self._settings, f"tenant {new_id()}")

    async def caller(self, tenant_id: UUID, role: KeyRole, user: str | None = None) -> Client:
        return await self.with_key(await tenancy.issue_key(self._settings, tenant_id, role, user=user))

    async def admin(self) -> Client:
        """The admin of a tenant of its own."""
        return await self.caller(await self.tenant(), "admin")

    async def revoke(self, key: str) -> None:
        assert await tenancy.revoke_key(self._settings, key)

    async def with_key(self, key: str) -> Client:
        return await self._open.enter_async_context(Client(self._url, key))


@pytest.fixture
async def callers(parley: Up) -> AsyncIterator[Callers]:
    async with AsyncExitStack() as open_clients:
        yield Callers(parley, open_clients)


@pytest.fixture
async def admin(callers: Callers) -> Client:
    """The admin of a tenant that nobody else uses."""
    return await callers.admin()
