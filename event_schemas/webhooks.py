"""Webhooks: addresses of a tenant's own that are told of events of its log.

The secret that deliveries are signed with is in no command and no event, and neither is a URL's query, which may hold
one.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import Field

from event_schemas.payload import Payload


class _AboutWebhook(Payload):
    webhook_id: UUID

    def subject(self) -> str:
        return f"webhook:{self.webhook_id}"


class AddWebhook(_AboutWebhook):
    wire_name: ClassVar[str] = "webhook.add.v1"

    url: str = Field(description="without its query")
    event_types: tuple[str, ...] = Field(description="names of events without their versions")


class WebhookAdded(_AboutWebhook):
    """From now on it is told of events of these types."""

    wire_name: ClassVar[str] = "webhook.added.v1"

    url: str = Field(description="without its query")
    event_types: tuple[str, ...] = Field(description="names of events without their versions")


class RemoveWebhook(_AboutWebhook):
    wire_name: ClassVar[str] = "webhook.remove.v1"


class WebhookRemoved(_AboutWebhook):
    """It is told of nothing any more, and its secret is not kept."""

    wire_name: ClassVar[str] = "webhook.removed.v1"


class WebhookDisabled(_AboutWebhook):
    """It took no deliveries for days, or said that it wants none. It is told of nothing any more."""

    wire_name: ClassVar[str] = "webhook.disabled.v1"

    reason: str = Field(description="stable: `gone` or `gave_up`")
    detail: str = Field(description="for people: how the last delivery failed; carries no secret")
    undelivered: int = Field(ge=1, description="sequence in the log of the first event that it was not told of")


class WebhookTest(_AboutWebhook):
    """What a webhook is sent to try it out. Stands on no topic and in no log."""

    wire_name: ClassVar[str] = "webhook.test.v1"
