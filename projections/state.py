"""Rows in memory, and folding envelopes into them. Pure: loading and writing back is the writer's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from event_schemas.codec import AnyEnvelope
from event_schemas.payload import Payload
from projections.table import Drop, Key, Projection, Row, Selector, Table, Where

_Member = tuple[str, UUID | int, UUID]


class TableState:
    """The rows of one table that a batch touches, and what the batch did to them."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.drops: set[Drop] = set()
        self._stored: dict[Key, Row] = {}
        self._rows: dict[Key, Row | None] = {}
        self._members: dict[_Member, dict[Key, None]] = defaultdict(dict)

    def load(self, row: Row) -> None:
        """Take a row as it is stored."""
        key = self.table.key_of(row)
        self._stored[key] = row
        self.put(key, row)

    def get(self, key: Key) -> Row | None:
        return self._rows.get(key)

    def put(self, key: Key, row: Row | None) -> None:
        before = self._rows.get(key)
        self._rows[key] = row
        if row is not None:
            for column in self.table.selected_by:
                if before is None or before[column] is not row[column]:
                    self._members[column, key[0], row[column]][key] = None

    def keys(self, selector: Where | Drop) -> list[Key]:
        return list(self._members.get((selector.column, selector.tenant_id, selector.value), ()))

    def rows(self) -> list[Row]:
        """All rows that stand."""
        return [row for row in self._rows.values() if row is not None]

    def written(self) -> list[Row]:
        """Rows that are new or differ from what is stored."""
        return [row for key, row in self._rows.items() if row is not None and row != self._stored.get(key)]

    def deleted(self) -> list[Key]:
        """Keys of stored rows that no longer stand, dropped ones included."""
        return [key for key in self._stored if self._rows[key] is None]


class Needs:
    """What has to be loaded of one table before a batch can be folded."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()
        self.selected: set[Where] = set()


class Step(NamedTuple):
    """One envelope on its way into one projection."""

    projection: Projection
    table: TableState
    envelope: AnyEnvelope
    selectors: Sequence[Selector]
    beside: tuple[TableState, Key] | None

    def take(self) -> None:
        """Fold it."""
        _, table, envelope, selectors, at = self
        beside = None if at is None else at[0].get(at[1])
        for selector in selectors:
            if isinstance(selector, Drop):
                table.drops.add(selector)
                for key in table.keys(selector):
                    table.put(key, None)
                continue
            for key in table.keys(selector) if isinstance(selector, Where) else (selector,):
                row = table.get(key)
                after = self.projection.fold(key, row, envelope, beside)
                if after is not row:
                    table.put(key, after)


class State:
    """All tables of some projections. They are folded in the order given, so one that looks at another comes later."""

    def __init__(self, projections: Sequence[Projection]) -> None:
        self._projections = projections
        self._by_payload: dict[type[Payload], list[Projection]] = {}
        self.tables = {projection.name: TableState(projection.table) for projection in projections}

    def steps(self, envelope: AnyEnvelope) -> list[Step]:
        """What there is to do, in order."""
        steps = []
        for projection in self._asked(envelope):
            at = projection.beside(envelope)
            beside = None if at is None else (self.tables[at.projection], at.key)
            table = self.tables[projection.name]
            steps.append(Step(projection, table, envelope, projection.affects(envelope), beside))
        return steps

    def _asked(self, envelope: AnyEnvelope) -> list[Projection]:
        payload = type(envelope.data)
        asked = self._by_payload.get(payload)
        if asked is None:
            asked = [projection for projection in self._projections if payload in projection.handles]
            self._by_payload[payload] = asked
        return asked


def needs(steps: Iterable[Step]) -> dict[str, Needs]:
    """What has to be loaded before ``steps`` are taken, by table name; only tables of which anything is needed."""
    needed: dict[str, Needs] = defaultdict(Needs)
    for step in steps:
        of_table = needed[step.projection.name]
        for selector in step.selectors:
            if isinstance(selector, Where):
                of_table.selected.add(selector)
            elif not isinstance(selector, Drop):
                of_table.keys.add(selector)
        if step.beside is not None:
            table, key = step.beside
            needed[table.table.name].keys.add(key)
    return dict(needed)
