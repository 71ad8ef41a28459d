"""The bus, and Apache Pulsar behind it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class PulsarSettings(BaseModel):
    """Apache Pulsar. Parley's namespace in it is its own: `parley pulsar setup` sets that namespace's policies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = Field(
        default=None, description="`pulsar://…` or `pulsar+ssl://…`; none: the bus is kept in Postgres"
    )
    admin_url: str = Field(default="http://127.0.0.1:8080", description="the broker's admin REST API")
    tenant: str = Field(default="parley", pattern=r"^[\w.-]+$", description="Pulsar tenant")
    namespace: str = Field(default="main", pattern=r"^[\w.-]+$", description="namespace in that tenant")
    token: SecretStr | None = Field(default=None, description="JSON web token that the broker knows a role by")
    ca_file: Path | None = Field(default=None, description="PEM file of who signed the broker's certificate")


class BusSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    pulsar: PulsarSettings = PulsarSettings()
    partitions: int = Field(default=8, ge=1, le=128, description="partitions of a topic when it is made")
    lease_s: float = Field(default=10.0, gt=0, description="seconds of silence until a consumer counts as dead")
    retention_hours: int = Field(default=24, ge=1, description="how long what everybody has read is kept")
