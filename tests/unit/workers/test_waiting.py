from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from workers.waiting import Waiting


def test_the_oldest_one_counts_while_it_waits() -> None:
    waiting, now = Waiting(), datetime.now(UTC)
    assert waiting.oldest_s() == 0
    with waiting.since(now - timedelta(seconds=5)):
        with waiting.since(now - timedelta(seconds=60)):
            assert waiting.oldest_s() == pytest.approx(60, abs=5)
        assert waiting.oldest_s() == pytest.approx(5, abs=4)
    with waiting.since(now + timedelta(seconds=60)):
        assert waiting.oldest_s() == 0, "another machine's clock is ahead"
    assert waiting.oldest_s() == 0
