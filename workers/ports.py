"""What an attempt needs of everything else."""

from __future__ import annotations

from dataclasses import dataclass

from backplane.ports.bus import Publisher
from backplane.ports.database import Database
from backplane.ports.token_stream import StreamWriter
from backplane.security.content import DataKeys
from workers.billing import Billing
from workers.sources.resolving import Sources
from workers.suspension import Suspension
from workers.upstream import Upstream


@dataclass(frozen=True, slots=True)
class AttemptPorts:
    upstream: Upstream
    billing: Billing
    publisher: Publisher
    streams: StreamWriter
    database: Database
    data_keys: DataKeys
    sources: Sources | None = None
    """None: this worker reads none, and a prompt that wishes for some fails."""
    suspension: Suspension | None = None
    """None: the engine keeps nothing of conversations that rest."""
