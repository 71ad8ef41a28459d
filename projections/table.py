"""What a projection is: a table, the rows of it that an envelope affects, and a pure fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from event_schemas.codec import AnyEnvelope
from event_schemas.payload import Payload

Row = dict[str, Any]

Key = tuple[UUID | int, ...]
"""Values of a table's key columns, in their order; the tenant is always the first."""


@dataclass(frozen=True, slots=True)
class Table:
    """A read model's table.

    ``columns`` are names and Postgres types. ``key`` begins with ``tenant_id``, so that no event of one tenant can
    reach a row of another. ``selected_by`` are the columns that ``Where`` and ``Drop`` may name.
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    selected_by: tuple[str, ...] = ()

    def key_of(self, row: Row) -> Key:
        return tuple(row[column] for column in self.key)


@dataclass(frozen=True, slots=True)
class Where:
    """All rows of a tenant that have this value; each of them is folded."""

    tenant_id: UUID
    column: str
    value: UUID


@dataclass(frozen=True, slots=True)
class Drop:
    """All rows of a tenant that have this value; they are deleted without being looked at."""

    tenant_id: UUID
    column: str
    value: UUID


Selector = Key | Where | Drop


@dataclass(frozen=True, slots=True)
class Beside:
    """A row of another projection that a fold looks at, as it stands once the same envelope was folded there."""

    projection: str
    key: Key


def _nothing_beside(_: AnyEnvelope) -> Beside | None:
    return None


@dataclass(frozen=True, slots=True)
class Projection:
    """One read model.

    ``handles`` names the payloads that it is asked about. ``fold(key, row, envelope, beside)`` gives the row that
    stands after the envelope; None, in and out, is "no such row". A fold is pure: it does no I/O, never changes what
    it is given, and accepts a generation's facts in any order, since they come on several partitions.
    """

    table: Table
    handles: frozenset[type[Payload]]
    affects: Callable[[AnyEnvelope], Sequence[Selector]]
    fold: Callable[[Key, Row | None, AnyEnvelope, Row | None], Row | None]
    beside: Callable[[AnyEnvelope], Beside | None] = _nothing_beside
    looks_at: tuple[str, ...] = ()
    """Names of the projections that ``beside`` may name. They stand before this one in the catalog."""

    @property
    def name(self) -> str:
        return self.table.name
