"""The provider keys that were added at run time: read when the worker starts, and kept fresh without a restart."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from backplane.ports.database import Database, DatabaseUnavailable, Row
from backplane.ports.token_stream import Signals
from backplane.security.provider_key import CHANGED, ProviderKey, place
from backplane.security.sealing import CannotOpen, MasterKey
from workers.keys import Keys

logger = logging.getLogger(__name__)

_POLL_S = 5.0
"""For so long, at most, a change goes unnoticed whose signal was lost."""

# What is known already is not sent again.
_READ = """
    SELECT key_id, tenant_id, CASE WHEN key_id = ANY(CAST(:known AS uuid[])) THEN NULL ELSE sealed END AS sealed
    FROM control.provider_keys WHERE pool = :pool AND retired_at IS NULL
"""


class AddedKeys:
    """Those of one pool, handed over to ``keys``."""

    def __init__(
        self, pool: str, database: Database, master_key: MasterKey, keys: Keys, poll_s: float = _POLL_S
    ) -> None:
        self._pool = pool
        self._database = database
        self._master_key = master_key
        self._keys = keys
        self._poll_s = poll_s
        self._known: dict[UUID, tuple[UUID, ProviderKey | None]] = {}
        """By id: the owner and the key; None where it cannot be opened."""

    async def load(self) -> bool:
        """Use what is there now. True where that is news. Raises DatabaseUnavailable."""
        rows = await self._database.at_once(_READ, pool=self._pool, known=list(self._known))
        found = {row["key_id"]: self._known.get(row["key_id"]) or self._opened(row) for row in rows}
        if found.keys() == self._known.keys():
            return False
        self._known = found
        added: defaultdict[UUID, list[ProviderKey]] = defaultdict(list)
        for owner, key in found.values():
            added[owner] += [] if key is None else [key]
        self._keys.use(added)
        return True

    async def follow(self, signals: Signals, changed: Callable[[], None]) -> None:
        """Load whenever something changed, and call ``changed``, until this task is cancelled."""
        async with signals.listen(CHANGED) as pools:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        while await anext(pools) != self._pool:
                            continue
                try:
                    if await self.load():
                        changed()
                except DatabaseUnavailable as error:
                    logger.warning("keys not read", extra={"action": "keys_not_read", "cause": str(error)})

    def _opened(self, row: Row) -> tuple[UUID, ProviderKey | None]:
        owner, key_id = row["tenant_id"], row["key_id"]
        try:
            return owner, ProviderKey.of(self._master_key.open(row["sealed"], place(owner, key_id, self._pool)))
        except CannotOpen as error:
            about = {"pool": self._pool, "tenant_id": str(owner), "provider_key_id": str(key_id), "cause": str(error)}
            logger.error("provider key cannot be opened", extra={"action": "key_not_opened"} | about)
            return owner, None
