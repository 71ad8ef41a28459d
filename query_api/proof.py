"""Whether the live log of a tenant still follows from its beginning, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from backplane.ports.database import Database
from backplane.security.chain import BEGINNING, Broken, Head, follow
from backplane.security.checkpoint import Checkpoint, vouch
from query_api import sql

_PAGE = 200
_EVERYTHING = sql.EventFilter()


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found of a log from line ``first`` on."""

    first: int
    head: Head
    """The line that was reached; where there is a fault, not all before it need be right."""
    newest: int
    """Sequence of the log's newest line when this began."""
    checkpoints: int
    keys: frozenset[str]
    """Public keys that the checkpoints name, each true to its own. Which are to be trusted, who asks must know."""
    fault: Broken | None

    @property
    def next(self) -> Head | None:
        """Where to go on; None where all is seen, or something is wrong."""
        return None if self.fault is not None or self.head.sequence >= self.newest else self.head


async def prove(database: Database, tenant_id: UUID, begin: Head | None, *, limit: int) -> Proof:
    """Walk at most ``limit`` lines after ``begin``, where an earlier proof ended; None is the log's own beginning.

    Raises DatabaseUnavailable.
    """
    async with database.tenant(tenant_id) as session:
        signed, pruned = await sql.newest_checkpoint(session), await sql.beginning(session)
        newest = await sql.newest_event(session)
    walk = _Walk(begin or BEGINNING)
    try:
        walk.begin(pruned)
        to = min(newest.sequence, walk.head.sequence + limit)
        while walk.head.sequence < to:
            await walk.on(database, tenant_id, to)
        if walk.head.sequence >= newest.sequence:
            if walk.head != newest:
                raise Broken(newest.sequence, "is not the line that the log's head names")
            if signed is not None and signed.sequence > newest.sequence:
                raise Broken(newest.sequence + 1, f"is missing: a checkpoint signs line {signed.sequence}")
    except Broken as broken:
        return walk.proof(newest.sequence, broken)
    return walk.proof(newest.sequence, None)


class _Walk:
    def __init__(self, begin: Head) -> None:
        self.head = begin
        self._first = begin.sequence + 1
        self._checkpoints = 0
        self._keys: set[str] = set()

    def begin(self, pruned: Checkpoint | None) -> None:
        """At the signed beginning of a log that was ``pruned`` further than we are. Raises Broken."""
        if pruned is not None and pruned.sequence >= self.head.sequence:
            if pruned.sequence > self.head.sequence:
                self.head = pruned.head
                self._first = self.head.sequence + 1
            self._vouched(pruned)

    async def on(self, database: Database, tenant_id: UUID, to: int) -> None:
        """Some hundred lines further. Raises Broken, DatabaseUnavailable."""
        after = self.head.sequence
        async with database.tenant(tenant_id) as session:
            rows = await sql.events(session, _EVERYTHING, after=after, up_to=to, limit=_PAGE)
            signed = await sql.checkpoints(session, after=after, up_to=rows[-1]["sequence"] if rows else to)
            pruned = await sql.beginning(session)
        if pruned is not None and pruned.sequence > after:
            self.begin(pruned)
            return
        by_sequence = {each.sequence: each for each in signed}
        for row in rows:
            self.head = follow(self.head, row["sequence"], bytes(row["hash"]), bytes(row["envelope"]))
            if self.head.sequence in by_sequence:
                self._vouched(by_sequence[self.head.sequence])
        if not rows:
            raise Broken(after + 1, "is missing")

    def proof(self, newest: int, fault: Broken | None) -> Proof:
        return Proof(self._first, self.head, newest, self._checkpoints, frozenset(self._keys), fault)

    def _vouched(self, signed: Checkpoint) -> None:
        vouch(signed, self.head, (signed.key,))
        self._checkpoints += 1
        self._keys.add(signed.key)
