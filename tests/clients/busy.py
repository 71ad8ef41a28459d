"""A key whose one place is taken, until a client has met the limit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.e2e.client import Client, eventually

DEADLINE_S = 200.0

_ENDLESS = {"script": json.dumps({"tokens": ["a"], "hang_after": 1})}


class Busy:
    def __init__(self, admin: Client, key_id: str, key: str) -> None:
        self._admin = admin
        self._key_id = key_id
        self._running: list[str] = []
        self.key = key

    @classmethod
    @asynccontextmanager
    async def of(cls, admin: Client) -> AsyncIterator[Busy]:
        """One that may run a generation at a time, and runs one."""
        issued = (await admin.http.post("/v1/api-keys", json={"role": "member"})).json()
        limited = await admin.http.put(f"/v1/limits/key/{issued['id']}", json={"concurrent": 1})
        assert limited.status_code == 200, limited.text
        busy = cls(admin, issued["id"], issued["key"])
        try:
            await eventually(busy._run_one, lambda status: status == 429)
            yield busy
        finally:
            await busy._end()

    async def free(self, after: int = 1) -> None:
        """Frees the place, once it was refused so many times."""
        # One more was refused to whoever took the place.
        await eventually(self._refusals, lambda count: count > after, within=DEADLINE_S)
        await self._end()

    async def _run_one(self) -> int:
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = await self._admin.http.post("/v1/prompts", json={"input": "a", "metadata": _ENDLESS}, headers=headers)
        assert answer.status_code in (202, 429), answer.text
        if answer.status_code == 202:
            self._running.append(answer.json()["generation_id"])
        return answer.status_code

    async def _refusals(self) -> int:
        told = [one["data"] for one in await self._admin.events(type="prompt.rejected.v1")]
        return sum(
            one["count"] for one in told if (one["key_id"], one["reason"]) == (self._key_id, "rate-limit-exceeded")
        )

    async def _end(self) -> None:
        while self._running:
            await self._admin.cancel(self._running.pop())
