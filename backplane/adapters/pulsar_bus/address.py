"""Where the broker is, and whose namespace is ours."""

from __future__ import annotations

from dataclasses import dataclass, field
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

    def __str__(self) -> str:
        return f"{self.tenant}/{self.namespace} at {self.url}"
