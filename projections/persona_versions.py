"""Versions of personas, as they were saved; all of one that was removed are gone. What they say is sealed."""

from __future__ import annotations

from collections.abc import Sequence

from event_schemas.codec import AnyEnvelope
from event_schemas.payload import PersonaRef
from event_schemas.personas import PersonaRemoved, PersonaSaved
from projections.table import Drop, Key, Projection, Row, Selector, Table

TABLE = Table(
    name="persona_versions",
    columns={
        "persona_id": "uuid",
        "version": "integer",
        "tenant_id": "uuid",
        "name": "text",
        "content": "jsonb",
        "saved_by": "text",
        "saved_at": "timestamptz",
    },
    key=("tenant_id", "persona_id", "version"),
    selected_by=("persona_id",),
)

REF = {"persona_id": "uuid", "persona": "text", "persona_version": "integer"}
"""Columns of other tables that say what was asked as."""


def ref_row(persona: PersonaRef | None) -> Row:
    """``REF`` of ``persona``."""
    if persona is None:
        return dict.fromkeys(REF)
    return {"persona_id": persona.persona_id, "persona": persona.name, "persona_version": persona.version}


def _affects(envelope: AnyEnvelope) -> Sequence[Selector]:
    match envelope.data:
        case PersonaSaved() as saved:
            return ((envelope.tenantid, saved.persona_id, saved.version),)
        case PersonaRemoved(persona_id=persona_id):
            return (Drop(envelope.tenantid, "persona_id", persona_id),)
    return ()


def _fold(key: Key, row: Row | None, envelope: AnyEnvelope, _: Row | None) -> Row | None:
    saved = envelope.data
    if not isinstance(saved, PersonaSaved):
        return row
    return {
        "tenant_id": key[0],
        "persona_id": saved.persona_id,
        "version": saved.version,
        "name": saved.name,
        "content": saved.content.model_dump(),
        "saved_by": envelope.actor,
        "saved_at": envelope.time,
    }


PROJECTION = Projection(
    table=TABLE,
    handles=frozenset((PersonaSaved, PersonaRemoved)),
    affects=_affects,
    fold=_fold,
)
