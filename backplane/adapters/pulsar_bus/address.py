"""Where the broker is, and whose namespace is ours."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PulsarAddress:
    """``url`` speaks Pulsar's binary protocol, ``admin_url`` its admin REST API (v2)."""

    url: str
    admin_url: str
    tenant: str
    namespace: str
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    def topic(self, name: str, partition: int | None = None) -> str:
        """The full name of a topic, or of one of its partitions, which Pulsar treats as a topic of its own."""
        full = f"persistent://{self.tenant}/{self.namespace}/{name}"
        return full if partition is None else f"{full}-partition-{partition}"

    @property
    def token_expired_at(self) -> datetime | None:
        """When the token ended, by its own word and this machine's clock; None where it has not."""
        expires_at = _expiry(self.token)
        return expires_at if expires_at is not None and expires_at <= datetime.now(UTC) else None

    @property
    def token_advice(self) -> str:
        """What to do about the token where the broker does not like it."""
        if self.token_expired_at is None:
            return "check bus.pulsar.token"
        return (
            f"bus.pulsar.token expired at {self.token_expired_at.isoformat()}: set a new one, and restart the service"
        )

    def __str__(self) -> str:
        return f"{self.tenant}/{self.namespace} at {self.url}"


def _expiry(token: str | None) -> datetime | None:
    """When a JSON web token ends (RFC 7519, 4.1.4); None where it does not say so, or is none."""
    claims = (token or "").split(".")[1:2]
    try:
        ends = json.loads(base64.urlsafe_b64decode(claims[0] + "==")).get("exp") if claims else None
        return datetime.fromtimestamp(ends, UTC) if isinstance(ends, int) else None
    except (binascii.Error, ValueError, AttributeError, OverflowError, OSError):
        return None
