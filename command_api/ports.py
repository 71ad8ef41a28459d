"""What the command API's endpoints stand on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Request
from starlette.requests import HTTPConnection

from backplane.ports.budget import Budget
from backplane.ports.database import Database
from backplane.ports.token_stream import Signals, StreamEraser, StreamUnavailable
from backplane.security.principal import Principal
from backplane.settings import Settings
from backplane.web.authentication import requires
from command_api import conversations, erasure
from command_api.batches import Batches
from command_api.chat_replies import ChatReplies
from command_api.chat_tools import ChatTools
from command_api.collections import Collections
from command_api.content_keys import ContentKeys
from command_api.conversation_life import ConversationLife
from command_api.dead_letters import DeadLetterBox
from command_api.embeddings import Embedding
from command_api.limit_warnings import LimitWarnings
from command_api.outbox import Relay
from command_api.personas import Personas
from command_api.provider_keys import ProviderKeys
from command_api.refusals import Refusals
from command_api.service import PeoplePorts
from command_api.submission import Submission
from command_api.webhook_delivery import Deliveries
from command_api.webhooks import Webhooks
from event_schemas.generation import CancelGeneration

logger = logging.getLogger(__name__)

_RECORDED_POLL_S = 0.005

Prompter = Annotated[Principal, Depends(requires("conversations.use"))]

GenerationId = Annotated[UUID, Path(description="the generation, as the 202 named it")]
ConversationId = Annotated[UUID, Path(description="the conversation, as the 202 named it")]


@dataclass(frozen=True, slots=True)
class CommandPorts:
    """What the endpoints need; stands at ``app.state.command``."""

    submission: Submission
    refusals: Refusals
    relay: Relay
    database: Database
    read_your_writes_s: float
    provider_keys: ProviderKeys
    content_keys: ContentKeys
    streams: StreamEraser
    webhooks: Webhooks
    deliveries: Deliveries
    budget: Budget
    signals: Signals
    people: PeoplePorts
    limit_warnings: LimitWarnings
    dead_letters: DeadLetterBox
    personas: Personas
    settings: Settings
    collections: Collections
    life: ConversationLife
    batches: Batches
    chat_tools: ChatTools
    chat_replies: ChatReplies
    embedding: Embedding


def ports_of(request: HTTPConnection) -> CommandPorts:
    ports: CommandPorts = request.app.state.command
    return ports


async def settle(request: Request, principal: Principal, event_id: UUID) -> None:
    """Wait until readers see a decided event, within the deadline. It is decided either way."""
    ports = ports_of(request)
    ports.relay.wake()
    try:
        async with asyncio.timeout(ports.read_your_writes_s):
            # Another process commits it, so there is nothing of ours to wait on.
            while not await conversations.recorded(ports.database, principal.tenant_id, event_id):  # noqa: ASYNC110
                await asyncio.sleep(_RECORDED_POLL_S)
    except TimeoutError:
        return


async def settle_erased(
    request: Request,
    principal: Principal,
    event_id: UUID,
    conversation_ids: Sequence[UUID],
    cancels: Sequence[CancelGeneration],
) -> None:
    """After their keys were deleted: stop what runs there, and take away the tokens that followers would still see."""
    ports = ports_of(request)
    for cancel in cancels:
        await ports.submission.publish_cancel(principal, cancel)
    await settle(request, principal, event_id)
    generations = await erasure.recent_in(ports.database, principal.tenant_id, conversation_ids)
    try:
        await ports.streams.erase(principal.tenant_id, generations)
    except StreamUnavailable as error:
        # They expire by themselves, and who cannot reach them cannot show them.
        logger.warning("token streams stay", extra={"action": "streams_not_erased", "cause": str(error)})
