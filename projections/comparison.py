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


@dataclass(frozen=True, slots=True)
class Compared:
    rows: int
    """Of the live table."""
    erased: int
    """Of these, rows that are marked as erased, or whose ciphertext was cut off."""
    differences: tuple[Difference, ...]
    """The first few."""


async def compared(session: Session, table: Table, live: str, rebuilt: str, source: str, most: int) -> Compared:
    """The table in schema ``live`` beside that in schema ``rebuilt``, which was made from ``source``; names the first
    ``most`` rows, by key, that are not equal.

    Every column of every row is compared. Where ciphertext was cut off, with its hash left in its place
    (``sealed_sha256``), that hash has to be the other one's.
    """
    counted = await session.one(
        f"SELECT count(*) AS rows, count(*) FILTER (WHERE {_is_erased(table)}) AS erased FROM {live}.{table.name} t"  # noqa: S608
    )
    assert counted is not None
    key = ", ".join(table.key)
    differs = {column: _differs(column, kind) for column, kind in table.columns.items() if column not in table.key}
    columns = ", ".join(f"CASE WHEN {condition} THEN '{column}' END" for column, condition in differs.items())
    missing, surplus = (f"{side}.{table.key[0]} IS NULL" for side in ("l", "r"))
    rows = await session.all(
        f"""SELECT {key}, {missing} AS missing, {surplus} AS surplus, array_remove(ARRAY[{columns}], NULL) AS columns
            FROM {live}.{table.name} l FULL JOIN {rebuilt}.{table.name} r USING ({key})
            WHERE {missing} OR {surplus} OR {" OR ".join(differs.values())} ORDER BY {key} LIMIT :most""",  # noqa: S608
        most=most,
    )
    differences = tuple(
        Difference(table.name, {column: str(row[column]) for column in table.key}, _what(row, source)) for row in rows
    )
    return Compared(counted["rows"], counted["erased"], differences)


def _differs(column: str, kind: str) -> str:
    differs = f"l.{column} IS DISTINCT FROM r.{column}"
    if kind != "jsonb":
        return differs
    return f"({differs} AND {_cut(f'l.{column}')} IS DISTINCT FROM {_cut(f'r.{column}')})"


def _cut(written: str) -> str:
    """Without its ciphertext, whose hash is put in its place, as a line's hash has it."""
    sealed_sha256 = f"encode(sha256(convert_to({written} ->> 'sealed', 'UTF8')), 'hex')"
    return (
        f"CASE WHEN {written} ? 'commitment' AND jsonb_typeof({written} -> 'sealed') = 'string'"
        f" THEN ({written} - 'sealed') || jsonb_build_object('sealed_sha256', {sealed_sha256}) ELSE {written} END"
    )


def _is_erased(table: Table) -> str:
    marked = ["t.erased"] if "erased" in table.columns else []
    cut = [
        f"coalesce(t.{column} ? 'sealed_sha256', false)" for column, kind in table.columns.items() if kind == "jsonb"
    ]
    return " OR ".join((*marked, *cut)) or "false"


def _what(row: dict[str, object], source: str) -> str:
    if row["missing"]:
        return f"is missing; {source} says it should be there"
    if row["surplus"]:
        return f"is there, but {source} knows nothing of it"
    columns = row["columns"]
    assert isinstance(columns, list)
    return f"differs in {', '.join(columns)}"
