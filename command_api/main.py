"""The command API as a service of its own, and its part of a service that mounts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime

from backplane.ports.database import Database, DatabaseUnavailable
from backplane.security.password import Passwords
from backplane.security.public_transport import PublicTransport
from backplane.settings import Settings
from backplane.settings.prices import PriceTable
from backplane.web.application import make_application
from backplane.web.server import serve_application
from backplane.wiring.services import CommandSide, command_side
from command_api import (
    batch_routes,
    chat_tool_routes,
    collection_routes,
    dead_letter_routes,
    fetching_routes,
    limits_routes,
    persona_routes,
    tokenizer,
    webhook_routes,
)
from command_api.allowance import Allowance
from command_api.api_keys import ApiKeys
from command_api.batch_pump import BatchPump
from command_api.batches import Batches
from command_api.chat_replies import ChatReplies
from command_api.chat_tools import ChatTools
from command_api.collections import Collections
from command_api.content_keys import ContentKeys
from command_api.conversation_life import ConversationLife
from command_api.dead_letters import DeadLetterBox
from command_api.embeddings import Embedding
from command_api.erasure import erase_due
from command_api.idempotency import BodyHash
from command_api.known_limits import KnownLimits
from command_api.known_personas import KnownPersonas
from command_api.limit_warnings import LimitWarnings
from command_api.oidc_sign_in import OidcSignIn
from command_api.outbox import Relay
from command_api.people import People
from command_api.personas import Personas
from command_api.ports import CommandPorts
from command_api.provider_keys import ProviderKeys
from command_api.refusals import Refusals
from command_api.routes import router
from command_api.service import PeoplePorts
from command_api.sessions import Sessions
from command_api.submission import Submission
from command_api.webhook_client import WebhookClient
from command_api.webhook_delivery import Deliveries
from command_api.webhooks import Webhooks
from event_schemas.topics import all_topics, dead_letters

ROUTERS = (
    router,
    limits_routes.router,
    webhook_routes.router,
    dead_letter_routes.router,
    persona_routes.router,
    fetching_routes.router,
    collection_routes.router,
    batch_routes.router,
    chat_tool_routes.router,
)

_HOUSEKEEPING_S = 3600.0


@asynccontextmanager
async def running(side: CommandSide, settings: Settings) -> AsyncIterator[CommandPorts]:
    """The command API's ports, with its relay, its refusals and its deliveries at work while the context lasts."""
    stop = asyncio.Event()
    allow_private = settings.webhooks.allow_private
    client = WebhookClient(PublicTransport(allow_private=allow_private))
    refusals = Refusals(side.bus, settings.refusals_window_s)
    keys = ContentKeys(side.database, side.data_keys)
    known_limits = KnownLimits(side.database, settings.security.key_cache_s)
    known_personas = KnownPersonas(side.database, keys, settings.security.key_cache_s)
    prices = PriceTable.load(settings.prices_file)
    await asyncio.to_thread(tokenizer.load, settings.pools.values())
    allowance = Allowance(side.budget, known_limits, side.database, prices, settings)
    relay = Relay(side.relay_database, side.bus, allowance.admits)
    ports = CommandPorts(
        Submission(side.bus, side.database, keys, BodyHash(side.key_pepper), allowance, known_personas, settings),
        refusals,
        relay,
        side.database,
        settings.read_your_writes_s,
        ProviderKeys(side.database, side.signals, side.master_key, settings.pools),
        keys,
        side.streams,
        Webhooks(side.database, side.master_key, allow_private=allow_private),
        Deliveries(side.database, side.relay_database, side.master_key, client),
        side.budget,
        side.signals,
        people_ports(side, settings, relay, refusals),
        LimitWarnings(side.database, relay.wake),
        DeadLetterBox(side.dead_letters, [dead_letters(topic) for topic in all_topics(list(settings.pools))]),
        Personas(side.database, side.signals, keys, settings),
        settings,
        Collections(side.database, side.data_keys, settings.knowledge.embedders),
        ConversationLife(side.database, keys, allowance, settings),
        Batches(side.database, keys),
        ChatTools(side.database, side.relay_database, side.master_key, settings),
        ChatReplies(side.database, side.relay_database, side.master_key),
        Embedding(side.bus, side.signals, allowance, prices, settings),
    )
    pump = BatchPump(
        side.database,
        side.relay_database,
        keys,
        ports.submission,
        settings,
        notice=ports.limit_warnings.notice,
        told=relay.wake,
    )
    async with aclosing(client), asyncio.TaskGroup() as tasks:
        tasks.create_task(relay.run(stop))
        tasks.create_task(ports.deliveries.run(stop))
        tasks.create_task(pump.run(stop))
        tasks.create_task(refusals.run(stop))
        tasks.create_task(_housekeeping(relay, side.database, stop))
        following = [
            tasks.create_task(side.authenticator.forget_revoked(side.signals)),
            tasks.create_task(known_limits.forget_changed(side.signals)),
            tasks.create_task(known_personas.forget_changed(side.signals)),
            tasks.create_task(ports.limit_warnings.run()),
        ]
        try:
            yield ports
        finally:
            stop.set()
            for each in following:
                each.cancel()


def people_ports(side: CommandSide, settings: Settings, relay: Relay, refusals: Refusals) -> PeoplePorts:
    """What the routes of tenants, users, keys and sessions need."""
    passwords, security = Passwords(), settings.security
    database, signals, pepper = side.database, side.signals, side.key_pepper
    sessions = Sessions(database, signals, pepper, passwords, refusals, security.session_hours)
    return PeoplePorts(
        database,
        signals,
        relay,
        ApiKeys(database, signals, pepper, settings),
        People(database, signals, pepper, passwords, security.invitation_hours),
        sessions,
        OidcSignIn(database, sessions, side.master_key, settings.oidc),
        pepper,
    )


async def _housekeeping(relay: Relay, database: Database, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), _HOUSEKEEPING_S)
        except TimeoutError:
            with suppress(DatabaseUnavailable):
                await relay.forget_old_keys()
                await relay.forget_uploads()
                await relay.forget_chat_replies()
                while not stop.is_set() and await erase_due(database, datetime.now(UTC)):
                    relay.wake()


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the command API alone until ``stop`` is set."""
    async with command_side(settings) as side, running(side, settings) as ports:
        app = make_application(
            "Parley command API",
            settings,
            side.authenticator,
            side.readiness,
            ROUTERS,
        )
        app.state.command = ports
        await serve_application(app, settings, stop)
