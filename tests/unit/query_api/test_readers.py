"""Who follows a generation and leaves early."""

from __future__ import annotations

from typing import Any, cast

from prometheus_client import REGISTRY

from query_api.following import Pace
from query_api.readers import follow_submitted
from query_api.service import QueryPorts
from tests.unit.query_api.truth import GENERATION, TENANT, FlakyStream, started

NEVER = Pace(without_stream=3600, idle=3600, longest_idle=3600)


def followers() -> float:
    found = REGISTRY.get_sample_value("parley_stream_followers")
    assert found is not None
    return found


async def test_who_leaves_is_not_counted_from_that_on() -> None:
    streams = FlakyStream()
    streams.keep(started(1))
    nowhere = cast(Any, None)
    ports = QueryPorts(nowhere, streams, nowhere, nowhere, nowhere, nowhere, nowhere, (), 0.1, NEVER)
    before = followers()
    steps = follow_submitted(ports, TENANT, GENERATION)
    assert (await anext(steps)).event in ("queued", "started")
    assert followers() == before + 1
    await steps.aclose()
    # Not a turn of the loop later, when the garbage collector would have closed what is left.
    assert followers() == before
    assert streams.inboxes == []
