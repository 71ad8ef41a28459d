"""How long a claim takes beside a load: asked for as a worker asks, of prompts that no worker has."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from backplane.settings import Settings
from backplane.wiring.embedded import role_database
from benches.child import LoadFailed
from benches.load import PROMPT
from event_schemas.chat import ChatMessage
from event_schemas.codec import encode
from event_schemas.envelope import Envelope
from event_schemas.generation import Parameters, PromptContent, SubmitPrompt
from workers.claims import Claimed, Claims

_EVERY_S = 0.1
_LEASE_S = 3600.0
_POOL = "probe"


class ClaimProbe:
    """Asks for a claim ten times a second."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._key = DataKey(secrets.token_bytes(32), "conversation/probed")
        self.seconds: list[float] = []
        """What each claim took, commit included."""

    async def run(self) -> None:
        """For ever. Raises DatabaseUnavailable, LoadFailed where a claim is refused."""
        while True:
            await self._ask()
            await asyncio.sleep(_EVERY_S)

    async def _ask(self) -> None:
        prompt = SubmitPrompt(
            generation_id=new_id(),
            conversation_id=new_id(),
            input_message_ids=(new_id(),),
            roles=("user",),
            input_tokens=3,
            parent_message_id=None,
            user_id=None,
            key_id=new_id(),
            model="scripted",
            pool=_POOL,
            parameters=Parameters(),
            content=self._key.seal(PromptContent(messages=(ChatMessage(role="user", content=PROMPT),))),
        )
        tenant_id = new_id()
        command = encode(
            Envelope.first(prompt, id=new_id(), source="/parley/command_api", tenant_id=tenant_id, actor="bench")
        )
        began = time.monotonic()
        answer = await self._claims.ask(tenant_id, prompt, command)
        self.seconds.append(time.monotonic() - began)
        if not isinstance(answer, Claimed):
            raise LoadFailed(f"a claim that nobody else can have was answered with {type(answer).__name__}")


@asynccontextmanager
async def probing_claims(settings: Settings) -> AsyncIterator[ClaimProbe]:
    """While the block lasts. Raises as ``ClaimProbe.run`` when it ends."""
    database = role_database(settings, "worker")
    probe = ClaimProbe(Claims(database, "bench", _LEASE_S))
    running = asyncio.create_task(probe.run())
    try:
        yield probe
        if running.done():
            await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await database.close()
