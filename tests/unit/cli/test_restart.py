from cli.restart import Backoff


def test_delays_double_up_to_the_most() -> None:
    backoff = Backoff(first_s=0.5, most_s=30.0)
    assert [backoff.next(0.1) for _ in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_long_life_begins_anew() -> None:
    backoff = Backoff(first_s=0.5, reset_s=60.0)
    backoff.next(0.1)
    backoff.next(59.9)
    assert backoff.next(60.0) == 0.5
    assert backoff.next(1.0) == 1.0
