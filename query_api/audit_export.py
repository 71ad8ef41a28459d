"""An export of a tenant's log with its proofs, up to the newest line that is signed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from backplane.ports.database import Database
from backplane.security.checkpoint import Checkpoint
from backplane.security.export import Entry, Header, encoded
from query_api import sql

_PAGE = 500

_EVERYTHING = sql.EventFilter()


class NothingSigned(Exception):
    """No line of the log is signed yet. The projections sign one soon after it was written."""


class PrunedMeanwhile(Exception):
    """Lines were pruned while they were to be exported. Begin again."""


@dataclass(frozen=True, slots=True)
class AuditExport:
    """Made by ``begin``."""

    header: Header
    _database: Database = field(repr=False)

    @classmethod
    async def begin(cls, database: Database, tenant_id: UUID) -> AuditExport:
        """Raises NothingSigned, DatabaseUnavailable."""
        async with database.tenant(tenant_id) as session:
            pruned, newest = await sql.beginning(session), await sql.newest_checkpoint(session)
        signed = [each.sequence for each in (pruned, newest) if each is not None]
        if not signed:
            raise NothingSigned("no line of this log is signed yet; the projections sign it within a minute or so")
        return cls(Header(tenant_id, max(signed), datetime.now(UTC), pruned), database)

    @property
    def after(self) -> int:
        """Sequence after which it begins."""
        return 0 if self.header.pruned is None else self.header.pruned.sequence

    async def lines(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """All of it, some hundred lines at a time, each time with the sequence up to which that goes.

        Raises PrunedMeanwhile, DatabaseUnavailable; what was written until then is then no whole export, and says so.
        """
        after, to = self.after, self.header.to
        yield after, self.header.encoded()
        while after < to:
            async with self._database.tenant(self.header.tenant_id) as session:
                rows = await sql.events(session, _EVERYTHING, after=after, up_to=to, limit=_PAGE)
                begins = rows[0]["sequence"] if rows else to + 1
                if begins != after + 1:
                    pruned = await sql.beginning(session)
                    if pruned is not None and pruned.sequence > after:
                        raise PrunedMeanwhile(
                            f"lines up to {pruned.sequence} were pruned while they were exported; export again"
                        )
                reached = rows[-1]["sequence"] if rows else to
                signed = await sql.checkpoints(session, after=after, up_to=reached)
            yield reached, _written([Entry.of(row) for row in rows], signed)
            after = reached


def _written(entries: list[Entry], signed: list[Checkpoint]) -> bytes:
    by_sequence = {each.sequence: each for each in signed}
    parts = []
    for entry in entries:
        parts.append(entry.encoded())
        if entry.sequence in by_sequence:
            parts.append(encoded(by_sequence[entry.sequence]))
    return b"".join(parts)
