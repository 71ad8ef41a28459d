"""What the query API needs of the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backplane.ports.bus import Log, Publisher
from backplane.ports.database import Database
from backplane.ports.freshness import Freshness
from backplane.ports.key_room import RoomView
from backplane.ports.token_stream import Signals, StreamReader
from backplane.security.content import DataKeys
from query_api.following import Pace


@dataclass(frozen=True, slots=True)
class QueryPorts:
    """Set as ``app.state.query`` of whatever application mounts ``routes.router``."""

    database: Database
    streams: StreamReader
    room: RoomView
    signals: Signals
    data_keys: DataKeys
    log: Log
    publisher: Publisher
    topics: Sequence[str]
    """Every live topic: what a read of what was just written waits for."""
    read_your_writes_s: float
    pace: Pace = field(default_factory=Pace)
    ping_s: float = 15.0
    """Seconds between the comments that keep a silent stream open."""
    session_idle_s: float = 3600.0
    """A session that is not used for so long has ended."""
    freshness: Freshness = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "freshness", Freshness(self.log, self.database, self.topics))
