from backplane.ports.token_stream import Cursor, Frame, Kind
from query_api.assembly import Assembly, Step
from tests.unit.query_api.truth import delta, started, tokens


def told(steps: list[Step]) -> list[tuple[str, str]]:
    return [(step.event, str(step.cursor)) for step in steps]


def test_what_comes_early_waits_for_what_comes_late() -> None:
    assembly = Assembly(Cursor(1, 0))
    assert assembly.take(tokens(1, 5, 6)) == []
    assert assembly.take(tokens(1, 3, 4)) == []
    assert assembly.incomplete
    steps = assembly.take(tokens(1, 1, 2))
    assert told(steps) == [("token", "1-2"), ("token", "1-4"), ("token", "1-6")]
    assert [text for step in steps for text in step.deltas] == [delta(1, seq) for seq in range(1, 7)]
    assert not assembly.incomplete


def test_overlaps_are_cut_to_what_is_new() -> None:
    assembly = Assembly(Cursor(1, 2))
    assert assembly.take(tokens(1, 1, 2)) == []
    (step,) = assembly.take(tokens(1, 1, 4))
    assert list(step.deltas) == [delta(1, 3), delta(1, 4)]
    assembly.take(tokens(1, 6, 7))
    assembly.take(tokens(1, 6, 9))
    steps = assembly.take(tokens(1, 4, 6))
    assert [text for step in steps for text in step.deltas] == [delta(1, seq) for seq in range(5, 10)]


def test_a_later_attempt_voids_what_waited() -> None:
    assembly = Assembly(Cursor(1, 1))
    assembly.take(tokens(1, 5, 6))
    assert told(assembly.take(started(2))) == [("restarted", "2-0")]
    assert not assembly.incomplete
    assert told(assembly.take(tokens(2, 1, 4))) == [("token", "2-4")]


def test_a_fenced_worker_is_not_heard() -> None:
    assembly = Assembly(Cursor(2, 1))
    assert assembly.take(tokens(1, 2, 9)) == []
    assert assembly.take(tokens(1, 5, 9)) == []
    assert not assembly.incomplete


def test_a_token_may_be_the_first_sign_of_an_attempt() -> None:
    assembly = Assembly(Cursor(0, 0))
    assert told(assembly.take(tokens(1, 1, 1))) == [("started", "1-0"), ("token", "1-1")]
    assert told(assembly.take(tokens(2, 2, 2))) == [("restarted", "2-0")]
    assert assembly.incomplete


def test_the_ending_waits_for_its_tokens_and_is_told_once() -> None:
    ending = Frame(Kind.COMPLETED, 1, 2, detail={"model": "m", "finish_reason": "stop"})
    assembly = Assembly(Cursor(0, 0))
    (step,) = assembly.take(ending)
    assert (step.event, step.detail) == ("started", {"attempt": 1, "model": "m"})
    assert (assembly.incomplete, assembly.done) == (True, False)
    assert told(assembly.take(tokens(1, 1, 2))) == [("token", "1-2"), ("completed", "1-2")]
    assert (assembly.incomplete, assembly.done) == (False, True)
    assert assembly.take(ending) == []


def test_an_ending_whose_tokens_are_nowhere_is_told_all_the_same() -> None:
    assembly = Assembly(Cursor(1, 1))
    assert assembly.give_up() == []
    assert assembly.take(Frame(Kind.COMPLETED, 1, 9)) == []
    assert assembly.take(tokens(1, 5, 6)) == []
    assert told(assembly.give_up()) == [("completed", "1-9")]
    assert (assembly.incomplete, assembly.done, assembly.give_up()) == (False, True, [])


def test_nothing_of_another_attempt_follows_an_ending() -> None:
    assembly = Assembly(Cursor(1, 0))
    assembly.take(Frame(Kind.COMPLETED, 1, 1))
    assert assembly.take(started(2)) == []
    assert told(assembly.take(tokens(1, 1, 1))) == [("token", "1-1"), ("completed", "1-1")]


def test_the_record_may_know_of_fewer_tokens_than_the_stream() -> None:
    assembly = Assembly(Cursor(1, 0))
    assert assembly.take(Frame(Kind.FAILED, 1, 5)) == []
    assert told(assembly.take(Frame(Kind.FAILED, 1, 0))) == [("failed", "1-0")]
