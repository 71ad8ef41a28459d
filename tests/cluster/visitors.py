"""People who ask one prompt after the other through the proxy, resume their streams at every cut, and remember all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.client import Answer, Client, Json


@dataclass
class Visit:
    """One prompt, and what its client was told."""

    expected: str | None
    """None: nobody knows beforehand what the model says."""
    accepted: Json = field(default_factory=dict)
    answer: Answer = field(default_factory=Answer)

    @property
    def generation_id(self) -> str:
        return str(self.accepted["generation_id"])


class Visitor:
    def __init__(self, name: str, client: Client, prompt: Mapping[str, Any], tokens: int | None) -> None:
        """``prompt``: fields of each prompt. ``tokens``: how many the scripted backend is told to say."""
        self.visits: list[Visit] = []
        self.faults: list[str] = []
        """Statuses that nobody may be told."""
        self._name = name
        self._client = client
        self._prompt = prompt
        self._tokens = tokens
        client.http.event_hooks["response"].append(self._look_at)

    @property
    def done(self) -> int:
        """Visits that have ended."""
        return sum(visit.answer.ended for visit in self.visits)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            key = f"{self._name}.{len(self.visits)}"
            tokens = [f"{key}/{place} " for place in range(self._tokens or 0)]
            script = {"tokens": tokens, "delay_s": 0.1} if tokens else None
            visit = Visit("".join(tokens) or None)
            self.visits.append(visit)
            visit.accepted = await self._submit(key, script)
            await self._client.follow_through(visit.generation_id, visit.answer, within=None)

    async def _submit(self, key: str, script: object) -> Json:
        """Ask until it is accepted, as clients do: the same key makes it the same prompt."""
        while True:
            try:
                response = await self._client.post_prompt(
                    f"prompt {key}", script=script, idempotency_key=key, **self._prompt
                )
            except httpx.TransportError:
                await asyncio.sleep(random.uniform(0.2, 1))
                continue
            if response.status_code == 202:
                accepted: Json = response.json()
                return accepted
            assert response.status_code == 503, f"{response.status_code}: {response.text}"
            await asyncio.sleep(float(response.headers["retry-after"]) * random.uniform(0.5, 1))

    async def _look_at(self, response: httpx.Response) -> None:
        if response.status_code >= 500 and not (
            response.status_code == 503 and response.headers.get("retry-after", "").isdecimal()
        ):
            await response.aread()
            told = (
                f"{response.request.method} {response.request.url.path}: {response.status_code} {response.text[:200]}"
            )
            self.faults.append(told)
