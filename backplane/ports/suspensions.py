"""What workers hear of conversations that are to rest, so that their engines may let go of them.

A hint: who does not hear it keeps nothing, and the model reads the conversation again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from uuid import UUID

from backplane.ports.token_stream import Signals

_SUSPENDED = "conversations:suspended"


async def announce(signals: Signals, tenant_id: UUID, conversation_id: UUID) -> None:
    """Tell all workers. Never raises."""
    await signals.send(_SUSPENDED, f"{tenant_id} {conversation_id}")


async def announced(signals: Signals) -> AsyncGenerator[tuple[UUID, UUID]]:
    """Tenant and conversation of each, until closed."""
    async with signals.listen(_SUSPENDED) as messages:
        async for message in messages:
            with suppress(ValueError):
                tenant_id, conversation_id = map(UUID, message.split())
                yield tenant_id, conversation_id
