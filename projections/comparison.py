"""What is live beside what was rebuilt, row by row."""

from __future__ import annotations

from dataclasses import dataclass

from backplane.ports.database import Session
from projections.table import Table


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not as the record says. Names places, never what stands there."""

    model: str
    key: dict[str, str]
    what: str

    def __str__(self) -> str:
        return f"{self.model} ({', '.join(f'{name} {value}' for name, value in self.key.items())}): {self.what}"


async def differences(session: Session, table: Table, live: str, rebuilt: str, most: int) -> tuple[Difference, ...]:
    """The first ``most`` rows, by key, in which schema ``live`` is not equal to schema ``rebuilt``."""
    key = ", ".join(table.key)
    columns = ", ".join(
        f"CASE WHEN l.{column} IS DISTINCT FROM r.{column} THEN '{column}' END"
        for column in table.columns
        if column not in table.key
    )
    any_differs = " OR ".join(f"l.{column} IS DISTINCT FROM r.{column}" for column in table.columns)
    rows = await session.all(
        f"""SELECT {key}, l.{table.key[0]} IS NULL AS missing, r.{table.key[0]} IS NULL AS surplus,
                   array_remove(ARRAY[{columns}], NULL) AS columns
            FROM {live}.{table.name} l FULL JOIN {rebuilt}.{table.name} r USING ({key})
            WHERE {any_differs} ORDER BY {key} LIMIT :most""",  # noqa: S608 - all names are our own
        most=most,
    )
    return tuple(Difference(table.name, {column: str(row[column]) for column in table.key}, _what(row)) for row in rows)


def _what(row: dict[str, object]) -> str:
    if row["missing"]:
        return "is missing; the record says it should be there"
    if row["surplus"]:
        return "is there, but the record knows nothing of it"
    columns = row["columns"]
    assert isinstance(columns, list)
    return f"differs in {', '.join(columns)}"
