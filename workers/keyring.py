"""The data keys that a worker opens what was written by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from uuid import UUID

from backplane.ports.database import TenantSession
from backplane.ports.key_wrapping import CannotUnwrap, WrappingUnavailable
from backplane.security.content import DataKey, DataKeys
from workers.inference.port import BackendUnavailable

_DEADLINE_S = 30.0
_POLL_S = 0.5


class Keyring:
    """The data keys of one tenant's conversations. ``known`` are some of them, None where there is none."""

    def __init__(self, data_keys: DataKeys, tenant_id: UUID, known: Mapping[UUID, DataKey | None]) -> None:
        self.tenant_id = tenant_id
        self._data_keys = data_keys
        self._known = dict(known)

    @property
    def conversations(self) -> frozenset[UUID]:
        """Those whose keys were asked for or known."""
        return frozenset(self._known)

    async def of(self, session: TenantSession, conversation_id: UUID) -> DataKey | None:
        """None: what was written there was erased. Raises DatabaseUnavailable, BackendUnavailable."""
        if conversation_id not in self._known:
            row = await session.one(
                "SELECT wrapped FROM control.data_keys WHERE tenant_id = :tenant_id AND conversation_id = :id"
                " AND generation_id IS NULL",
                tenant_id=self.tenant_id,
                id=conversation_id,
            )
            self._known[conversation_id] = (
                None
                if row is None
                else await unwrapped(self._data_keys, self.tenant_id, conversation_id, row["wrapped"])
            )
        return self._known[conversation_id]


async def unwrapped(data_keys: DataKeys, tenant_id: UUID, conversation_id: UUID, wrapped: bytes) -> DataKey:
    """A stored key. Raises BackendUnavailable where it cannot be had."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            return await data_keys.unwrap(wrapped, tenant_id, conversation_id)
        except CannotUnwrap as error:
            raise BackendUnavailable("data_key_unusable", f"its data key cannot be opened: {error}") from None
        except WrappingUnavailable as error:
            if time.monotonic() > deadline:
                raise BackendUnavailable("data_key_unavailable", str(error)) from error
            await asyncio.sleep(_POLL_S)
