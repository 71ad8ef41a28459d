"""A process that delivers to webhooks until it is killed. Its settings come as JSON on its standard input."""

from __future__ import annotations

import asyncio
import json
import sys

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.security.public_transport import PublicTransport
from backplane.security.sealing import MasterKey
from command_api.webhook_client import WebhookClient
from command_api.webhook_delivery import Deliveries


async def deliver(command_api: str, relay: str, master_key: str, lease_s: float) -> None:
    deliveries = Deliveries(
        PostgresDatabase(command_api, pool_size=2),
        PostgresDatabase(relay, pool_size=2),
        MasterKey(master_key),
        WebhookClient(PublicTransport(allow_private=True)),
        poll_s=0.02,
        lease_s=lease_s,
    )
    await deliveries.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(deliver(**json.load(sys.stdin)))
