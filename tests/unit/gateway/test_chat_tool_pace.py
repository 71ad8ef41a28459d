"""How often a message is edited."""

from __future__ import annotations

from gateway.chat_tools.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_call_may_be_made_at_once_and_the_next_after_the_interval() -> None:
    clock = Clock()
    pace = Pace(1.0, clock)
    assert pace.wait_s == 0
    pace.called()
    assert pace.wait_s == 1.0
    clock.now += 0.75
    assert pace.wait_s == 0.25
    clock.now += 5
    assert pace.wait_s == 0


def test_a_tool_that_wants_to_be_left_alone_is() -> None:
    clock = Clock()
    pace = Pace(1.0, clock)
    pace.called(retry_after_s=30.0)
    clock.now += 29
    assert pace.wait_s == 1.0
    pace.called()
    assert pace.wait_s == 1.0


def test_no_call_makes_the_wait_shorter() -> None:
    clock = Clock()
    pace = Pace(1.0, clock)
    pace.called(retry_after_s=30.0)
    pace.called()
    assert pace.wait_s == 30.0
