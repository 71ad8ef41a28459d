"""Loads the rows that a batch touches, folds it, and writes back what changed: a few statements a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import orjson

from backplane.ports.database import Session
from event_schemas.codec import AnyEnvelope
from projections.state import Needs, State, TableState, needs
from projections.table import Drop, Key, Projection, Row, Table, Where
from projections.text import storable_json


class Writer:
    """Applies envelopes to the tables of some projections, in one schema.

    It takes no lock on the rows: who calls holds the tenants' head rows (see ``event_log.lock``) or is alone in its
    schema, and since every key begins with the tenant, nobody else writes what it reads.
    """

    def __init__(self, projections: Sequence[Projection], schema: str) -> None:
        self._projections = projections
        self._schema = schema

    async def apply(self, session: Session, envelopes: Sequence[AnyEnvelope]) -> None:
        """Fold ``envelopes``, in order, within the transaction of ``session``. None of them may be a duplicate."""
        state = State(self._projections)
        steps = [step for envelope in envelopes for step in state.steps(envelope)]
        for name, needed in needs(steps).items():
            await self._load(session, state.tables[name], needed)
        for step in steps:
            step.take()
        for table in state.tables.values():
            await self._store(session, table)

    async def _load(self, session: Session, state: TableState, needs: Needs) -> None:
        table = state.table
        columns = ", ".join(f"t.{column}" for column in table.columns)
        select = f"SELECT {columns} FROM {self._schema}.{table.name} t"  # noqa: S608 - all names are our own
        if needs.keys:
            sql = f"{select} JOIN {_keys(table)} USING ({', '.join(table.key)})"
            for row in await session.all(sql, **_key_arrays(table, needs.keys)):
                state.load(row)
        for column, selectors in _by_column(needs.selected):
            for row in await session.all(f"{select} JOIN {_selected(column)}", **_selector_arrays(selectors)):
                state.load(row)

    async def _store(self, session: Session, state: TableState) -> None:
        table, target = state.table, f"{self._schema}.{state.table.name}"
        for column, selectors in _by_column(state.drops):
            await session.execute(
                f"DELETE FROM {target} t USING {_selected(column, using=True)}",  # noqa: S608
                **_selector_arrays(selectors),
            )
        deleted = state.deleted()
        if deleted:
            same = " AND ".join(f"t.{column} = k.{column}" for column in table.key)
            sql = f"DELETE FROM {target} t USING {_keys(table)} WHERE {same}"  # noqa: S608
            await session.execute(sql, **_key_arrays(table, deleted))
        written = state.written()
        if written:
            await session.execute(_upsert(table, target), rows=_json(written))


def _keys(table: Table) -> str:
    arrays = ", ".join(f"CAST(:k{place} AS {table.columns[column]}[])" for place, column in enumerate(table.key))
    return f"unnest({arrays}) AS k({', '.join(table.key)})"


def _key_arrays(table: Table, keys: Collection[Key]) -> dict[str, list[object]]:
    return {f"k{place}": [key[place] for key in keys] for place in range(len(table.key))}


def _selected(column: str, *, using: bool = False) -> str:
    arrays = "unnest(CAST(:tenants AS uuid[]), CAST(:values AS uuid[])) AS s(tenant_id, value)"
    return f"{arrays} {'WHERE' if using else 'ON'} t.tenant_id = s.tenant_id AND t.{column} = s.value"


def _selector_arrays(selectors: Sequence[Where | Drop]) -> dict[str, list[object]]:
    return {"tenants": [each.tenant_id for each in selectors], "values": [each.value for each in selectors]}


def _by_column(selectors: Iterable[Where | Drop]) -> Iterable[tuple[str, list[Where | Drop]]]:
    columns: dict[str, list[Where | Drop]] = {}
    for selector in selectors:
        columns.setdefault(selector.column, []).append(selector)
    return columns.items()


def _upsert(table: Table, target: str) -> str:
    columns = ", ".join(table.columns)
    typed = ", ".join(f"{column} {kind}" for column, kind in table.columns.items())
    changed = ", ".join(f"{column} = excluded.{column}" for column in table.columns if column not in table.key)
    return (
        f"INSERT INTO {target} ({columns}) "  # noqa: S608
        f"SELECT {columns} FROM json_to_recordset(CAST(CAST(:rows AS text) AS json)) AS r({typed}) "
        f"ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {changed}"
    )


def _json(rows: list[Row]) -> str:
    dumped = orjson.dumps(rows, default=str)
    if b"\\u0000" in dumped:
        dumped = orjson.dumps(storable_json(rows), default=str)
    return dumped.decode()
