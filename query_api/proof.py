"""Whether the live log of a tenant still follows from its beginning, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backplane.ports.database import Database, Row
from backplane.security.chain import BEGINNING, Broken, Head, follow
from backplane.security.checkpoint import Checkpoint, vouch
from backplane.security.principal import Principal
from query_api import sql

_PAGE = 500
_EVERYTHING = sql.EventFilter()


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found of the lines ``first`` to ``head.sequence``."""

    first: int
    head: Head
    """The last line that is right."""
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


async def prove(database: Database, principal: Principal, begin: Head | None, *, limit: int) -> Proof:
    """Walk at most ``limit`` lines after ``begin``, as an earlier proof gave it; None is the log's own beginning.

    Raises DatabaseUnavailable.
    """
    walk = _Walk()
    async with database.tenant(principal.tenant_id) as session:
        newest = await sql.newest_event(session)
        pruned = await sql.beginning(session)
    head = begin or BEGINNING
    if pruned is not None and pruned.sequence >= head.sequence:
        walk.vouched([pruned], pruned.head)
        head = pruned.head
    walk.head = head
    to = min(newest, head.sequence + limit)
    while walk.fault is None and walk.head.sequence < to:
        async with database.tenant(principal.tenant_id) as session:
            after = walk.head.sequence
            rows = await sql.events(session, _EVERYTHING, after=after, up_to=to, limit=_PAGE)
            reached = rows[-1]["sequence"] if rows else to
            signed = await sql.checkpoints(session, after=after, up_to=reached)
            moved = await sql.beginning(session)
        if moved is not None and moved.sequence > after:
            walk.head = moved.head  # pruned meanwhile; what is left begins there
            head = moved.head if head.sequence < moved.sequence else head
            continue
        walk.through(rows, signed, to)
    if walk.fault is None and walk.head.sequence >= newest:
        async with database.tenant(principal.tenant_id) as session:
            await walk.ended(session)
    return Proof(head.sequence + 1, walk.head, newest, walk.checkpoints, frozenset(walk.keys), walk.fault)


class _Walk:
    def __init__(self) -> None:
        self.head = BEGINNING
        self.checkpoints = 0
        self.keys: set[str] = set()
        self.fault: Broken | None = None

    def through(self, rows: Sequence[Row], signed: Sequence[Checkpoint], to: int) -> None:
        by_sequence: dict[int, list[Checkpoint]] = {}
        for each in signed:
            by_sequence.setdefault(each.sequence, []).append(each)
        try:
            for row in rows:
                head = follow(self.head, row["sequence"], bytes(row["hash"]), bytes(row["envelope"]))
                self.vouched(by_sequence.get(head.sequence, ()), head)
                self.head = head
            if not rows:
                raise Broken(self.head.sequence + 1, "is missing")
        except Broken as broken:
            self.fault = broken

    def vouched(self, signed: Sequence[Checkpoint], head: Head) -> None:
        for each in signed:
            vouch(each, head, (each.key,))
            self.checkpoints += 1
            self.keys.add(each.key)
