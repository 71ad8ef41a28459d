"""The envelope: CloudEvents 1.0 with Parley's extension attributes.

Attribute names follow https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md; extension names are lower
case without separators, as its section "Attribute Naming Convention" demands.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Generic, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from event_schemas.payload import Payload

P = TypeVar("P", bound=Payload)
P_co = TypeVar("P_co", bound=Payload, covariant=True)

SCHEMA_ROOT = "urn:parley:schema:"

PLATFORM = UUID(int=0)
"""The tenant of facts that are no tenant's own: the operator's."""


class Envelope(BaseModel, Generic[P_co]):
    """One command or event as it stands on the bus and in the record.

    ``correlationid`` is the id of the command that began the chain; ``causationid`` is the id of the envelope that
    directly caused this one (its own id at the start of a chain).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Literal["1.0"] = "1.0"
    id: UUID
    type: str
    source: str = Field(description="the service that wrote it, as `/parley/<service>`")
    subject: str
    time: AwareDatetime
    dataschema: str
    datacontenttype: Literal["application/json"] = "application/json"
    tenantid: UUID
    actor: str = Field(description="who caused it: `user:<uuid>`, `key:<uuid>`, `worker:<name>`, `operator`, `nobody`")
    correlationid: UUID
    causationid: UUID
    traceparent: str | None = Field(default=None, description="W3C trace context, where the request carried one")
    data: P_co

    @classmethod
    def first(
        cls, data: P, *, id: UUID, source: str, tenant_id: UUID, actor: str, traceparent: str | None = None
    ) -> Envelope[P]:
        """The envelope that begins a chain: its correlation and causation are its own id."""
        return _make(data, id, source, tenant_id, actor, id, id, traceparent)

    def caused(self, data: Payload, *, id: UUID, source: str, actor: str | None = None) -> Envelope[Payload]:
        """An envelope that this one caused: same tenant, chain and trace."""
        return _make(
            data, id, source, self.tenantid, actor or self.actor, self.correlationid, self.id, self.traceparent
        )


def _make(
    data: P,
    id: UUID,
    source: str,
    tenant_id: UUID,
    actor: str,
    correlation_id: UUID,
    causation_id: UUID,
    traceparent: str | None,
) -> Envelope[P]:
    # Every value was validated where it was made; a second validation would only cost time on the hot path.
    return Envelope.model_construct(
        specversion="1.0",
        id=id,
        type=data.wire_name,
        source=source,
        subject=data.subject(),
        time=datetime.now(UTC),
        dataschema=SCHEMA_ROOT + data.wire_name,
        datacontenttype="application/json",
        tenantid=tenant_id,
        actor=actor,
        correlationid=correlation_id,
        causationid=causation_id,
        traceparent=traceparent,
        data=data,
    )
