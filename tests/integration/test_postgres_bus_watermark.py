from hypothesis import given
from hypothesis import strategies as st

from backplane.adapters.postgres_bus.watermark import LowWaterMark


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[str, int]]]:
    """A first entry, then deliveries in rising order (gaps are possible) and acks of anything at any time."""
    start = draw(st.integers(1, 1000))
    entry = start
    steps: list[tuple[str, int]] = []
    for _ in range(draw(st.integers(0, 60))):
        if draw(st.booleans()):
            entry += draw(st.integers(0, 2))
            steps.append(("deliver", entry))
            entry += 1
        else:
            steps.append(("ack", draw(st.integers(start - 2, entry + 2))))
    return start, steps


@given(histories())
def test_next_is_the_first_delivered_entry_that_is_not_acknowledged(history: tuple[int, list[tuple[str, int]]]) -> None:
    start, steps = history
    mark = LowWaterMark(start)
    delivered: list[int] = []
    acked: set[int] = set()
    for step, entry in steps:
        before = mark.next
        if step == "deliver":
            mark.deliver(entry)
            delivered.append(entry)
        else:
            mark.ack(entry)
            if entry in delivered:
                acked.add(entry)
        still_open = [each for each in delivered if each not in acked]
        done = [each for each in delivered if not still_open or each < still_open[0]]
        assert mark.next == (done[-1] + 1 if done else start)
        assert mark.next >= before
        assert mark.outstanding == len(still_open)
        assert mark.delivered_next == (delivered[-1] + 1 if delivered else start)
        assert all(mark.is_open(each) == (each in still_open) for each in delivered)


@given(histories(), st.integers(0, 5))
def test_what_was_passed_cannot_be_delivered_again(history: tuple[int, list[tuple[str, int]]], back: int) -> None:
    start, steps = history
    mark = LowWaterMark(start)
    for step, entry in steps:
        (mark.deliver if step == "deliver" else mark.ack)(entry)
    try:
        mark.deliver(mark.delivered_next - 1 - back)
    except ValueError:
        return
    raise AssertionError("an entry was delivered out of order")
