"""When an engine is asked to count."""

from __future__ import annotations

from backplane.settings.pools import PoolSettings
from tests.contract.inference.requests import request
from workers.inference.port import Counted, InferenceRequest
from workers.inference.scripted import ScriptedBackend
from workers.upstream import Upstream

WINDOW = 100


class Counting(ScriptedBackend):
    def __init__(self, window: int | None) -> None:
        super().__init__(slots=1, context_window=window)
        self.asked = 0

    async def count(self, request: InferenceRequest) -> Counted | None:
        self.asked += 1
        return await super().count(request)


async def test_what_surely_fits_is_not_counted_again() -> None:
    backend = Counting(WINDOW)
    upstream = Upstream(backend, PoolSettings.model_validate({"backend": "scripted"}))
    short, long = request("word " * 5), request("word " * 40)
    assert await upstream.count(short) == Counted(5, WINDOW)
    estimate = await upstream.count(short)
    assert estimate is not None
    assert (estimate.window, backend.asked) == (WINDOW, 1), "its window is known by now"
    assert 5 < estimate.tokens <= WINDOW // 4
    assert (await upstream.count(long), backend.asked) == (Counted(40, WINDOW), 2)


async def test_who_does_not_count_is_estimated_where_the_window_is_known() -> None:
    said = request("word " * 40)
    unknown = Upstream(Counting(None), PoolSettings.model_validate({"backend": "scripted"}))
    assert await unknown.count(said) is None
    told = Upstream(Counting(None), PoolSettings.model_validate({"backend": "scripted", "context_window": WINDOW}))
    estimate = await told.count(said)
    assert estimate is not None
    assert estimate.window == WINDOW
    assert estimate.tokens > 40
