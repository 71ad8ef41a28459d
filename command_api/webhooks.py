"""Webhooks of tenants: which there are, what each wants to be told of, and how far it was told.

Each change is a command with an event, decided in one transaction.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

import orjson

from backplane.ports.database import Database, Row, TenantSession
from backplane.ports.identifiers import new_id
from backplane.security.public_address import is_public
from backplane.security.sealing import MasterKey
from command_api import outbox
from command_api.admission import Refused
from event_schemas.envelope import Envelope
from event_schemas.payload import Payload
from event_schemas.webhooks import AddWebhook, RemoveWebhook, WebhookAdded, WebhookDisabled, WebhookRemoved

SOURCE = "/parley/command_api"
ACTOR = "command_api"
"""Who disables what takes no deliveries."""

EventType = Literal[
    "batch.completed",
    "generation.cancelled",
    "generation.completed",
    "generation.failed",
    "key.issued",
    "key.revoked",
    "limit.nearly_reached",
    "prompt.rejected",
    "provider_key.added",
    "provider_key.retired",
    "provider_key.set_aside",
    "tenant.share_set",
    "user.invited",
    "webhook.added",
    "webhook.disabled",
    "webhook.removed",
]
"""Events that webhooks may be told of, without their versions."""

MOST_WEBHOOKS = 10
"""Of one tenant, disabled ones too."""

MOST_CHARACTERS = 2048
_SECRET_BYTES = 32


class NoSuchWebhook(LookupError):
    """Not there, or somebody else's."""


class Target(NamedTuple):
    """Where deliveries go, and what they are signed with."""

    url: str
    secret: str

    def __repr__(self) -> str:
        return "Target(…)"


@dataclass(frozen=True, slots=True)
class Added:
    id: UUID
    url: str
    """Without its query."""
    event_types: tuple[str, ...]
    added_at: datetime
    secret: str = field(repr=False)
    """As the Standard Webhooks have it: ``whsec_`` and base64. It can be shown now and never again."""


class Webhooks:
    """``allow_private``: webhooks may have URLs without TLS, and in private networks."""

    def __init__(self, database: Database, master_key: MasterKey, *, allow_private: bool) -> None:
        self._database = database
        self._master_key = master_key
        self._allow_private = allow_private

    async def add(self, owner: UUID, url: str, event_types: Sequence[EventType], *, actor: str) -> Added:
        """From now on ``url`` is told of events of these types. Raises Refused, DatabaseUnavailable."""
        shown = self._checked(url)
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
        command = AddWebhook(webhook_id=new_id(), url=shown, event_types=tuple(sorted(set(event_types))))
        async with self._database.tenant(owner) as session:
            await _has_room(session)
            row = await session.one(
                """INSERT INTO control.webhooks (webhook_id, tenant_id, url, event_types, sealed, told_to)
                   SELECT :id, :tenant_id, :url, :event_types, :sealed, coalesce(max(sequence), 0)
                   FROM read_models.event_log WHERE tenant_id = :tenant_id
                   RETURNING added_at""",
                id=command.webhook_id,
                tenant_id=owner,
                url=shown,
                event_types=command.event_types,
                sealed=seal(self._master_key, Target(url, secret), owner, command.webhook_id),
            )
            assert row is not None
            await _decided(session, command, WebhookAdded(**command.model_dump()), actor)
        return Added(command.webhook_id, shown, command.event_types, row["added_at"], secret)

    async def all(self, owner: UUID) -> list[Row]:
        """Every webhook that was not removed, the newest first. Raises DatabaseUnavailable."""
        async with self._database.tenant(owner) as session:
            return await session.all(
                """SELECT webhook_id AS id, url, event_types, added_at, told_to, failures, last_failure, disabled_at,
                          disabled_because, CASE WHEN failures > 0 AND disabled_at IS NULL THEN next_try_at END
                            AS next_try_at
                   FROM control.webhooks ORDER BY webhook_id DESC"""
            )

    async def remove(self, owner: UUID, webhook_id: UUID, *, actor: str) -> None:
        """It is told of nothing any more, and its secret is gone. Raises NoSuchWebhook, DatabaseUnavailable."""
        async with self._database.tenant(owner) as session:
            if not await session.execute("DELETE FROM control.webhooks WHERE webhook_id = :id", id=webhook_id):
                raise NoSuchWebhook(f"there is no webhook {webhook_id}")
            command = RemoveWebhook(webhook_id=webhook_id)
            await _decided(session, command, WebhookRemoved(webhook_id=webhook_id), actor)

    def _checked(self, url: str) -> str:
        """The URL as it is shown."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise _unusable("is not one") from None
        if len(url) > MOST_CHARACTERS:
            raise _unusable(f"has {len(url)} characters, the limit is {MOST_CHARACTERS}")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise _unusable("must be visible ASCII characters; encode others")
        if parts.scheme not in (("https", "http") if self._allow_private else ("https",)):
            raise _unusable("must begin with https://")
        if not host:
            raise _unusable("names no host")
        if parts.username is not None or parts.password is not None:
            raise _unusable("must not hold a user or a password; deliveries are signed")
        if parts.fragment:
            raise _unusable("must not have a fragment")
        if not self._allow_private and _is_address(host) and not is_public(host):
            raise _unusable("names an address that is not on the internet")
        return SplitResult(parts.scheme, parts.netloc, parts.path, "", "").geturl()


def seal(master_key: MasterKey, target: Target, owner: UUID, webhook_id: UUID) -> bytes:
    return master_key.seal(orjson.dumps([*target]).decode(), _place(owner, webhook_id))


def opened(master_key: MasterKey, sealed: bytes, owner: UUID, webhook_id: UUID) -> Target:
    """Raises CannotOpen."""
    return Target(*orjson.loads(master_key.open(sealed, _place(owner, webhook_id))))


async def disable(session: TenantSession, webhook_id: UUID, taker: UUID, event: WebhookDisabled) -> None:
    """No delivery any more, unless ``taker`` has lost its lease; why is shown until it is removed."""
    changed = await session.execute(
        """UPDATE control.webhooks
           SET disabled_at = now(), disabled_because = :reason, last_failure = :detail, sealed = NULL,
               failures = failures + 1, taker = NULL, lease_until = NULL
           WHERE webhook_id = :id AND taker = :taker""",
        id=webhook_id,
        taker=taker,
        reason=event.reason,
        detail=event.detail,
    )
    if changed:
        tell = Envelope.first(event, id=new_id(), source=SOURCE, tenant_id=session.tenant_id, actor=ACTOR)
        await outbox.add(session, tell)


def _place(owner: UUID, webhook_id: UUID) -> str:
    return f"webhook/{owner}/{webhook_id}"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _unusable(why: str) -> Refused:
    return Refused("unusable-url", "body.url", f"The URL {why}.")


async def _has_room(session: TenantSession) -> None:
    # One at a time for each owner, until the end of the transaction.
    await session.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:lock AS text), 0))", lock=f"webhooks/{session.tenant_id}"
    )
    found = await session.one("SELECT count(*) AS number FROM control.webhooks")
    if found is not None and found["number"] >= MOST_WEBHOOKS:
        raise Refused("too-many-webhooks", "body", f"There are {found['number']} webhooks, the limit. Remove one.")


async def _decided(session: TenantSession, command: Payload, event: Payload, actor: str) -> None:
    asked = Envelope.first(command, id=new_id(), source=SOURCE, tenant_id=session.tenant_id, actor=actor)
    await outbox.add(session, asked.caused(event, id=new_id(), source=SOURCE))
