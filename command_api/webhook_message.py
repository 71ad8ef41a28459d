"""What a webhook is sent: an event of its tenant's log without what people and models wrote, and its signature.

The body is a CloudEvent in structured JSON mode; the signature is that of the Standard Webhooks 1.0,
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import NamedTuple

import orjson

_WRITTEN = ("content", "title")


class Message(NamedTuple):
    id: str
    """The event's, so the same at every try."""
    body: bytes


def message(envelope: bytes) -> Message:
    """``envelope`` is a line of the record: the event as it was on the bus."""
    event = orjson.loads(envelope)
    event["data"] = {name: value for name, value in event["data"].items() if name not in _WRITTEN}
    return Message(event["id"], orjson.dumps(event))


def headers(sent: Message, secret: str, timestamp: int) -> dict[str, str]:
    """``secret`` as it was shown, ``whsec_…``; ``timestamp`` of this try, in seconds."""
    signed = b".".join((sent.id.encode(), str(timestamp).encode(), sent.body))
    mac = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    return {
        "content-type": "application/cloudevents+json",
        "webhook-id": sent.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }
