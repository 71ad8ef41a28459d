from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.inference.stop_strings import StopCut


def _cut(pieces: list[str], *stops: str) -> tuple[list[str], bool]:
    cut = StopCut(stops)
    return [cut.feed(piece) for piece in pieces] + [cut.rest()], cut.found


def test_text_passes_at_once_where_no_stop_string_can_begin() -> None:
    assert _cut(["The ", "rain"], "\nUser:") == (["The ", "rain", ""], False)


def test_what_may_begin_a_stop_string_is_held_back_until_it_is_known() -> None:
    assert _cut(["Hi\n", "Us", "e it"], "\nUser:") == (["Hi", "", "\nUse it", ""], False)
    assert _cut(["Hi\nUs"], "\nUser:") == (["Hi", "\nUs"], False)


def test_nothing_follows_the_first_stop_string() -> None:
    assert _cut(["a b ", "c d", "e"], "d", "b", "") == (["a ", "", "", ""], True)
    assert _cut(["Hi\nUs", "er: more"], "\nUser:") == (["Hi", "", ""], True)


@pytest.mark.parametrize("stops", [(), ("",)])
def test_without_stop_strings_everything_passes(stops: tuple[str, ...]) -> None:
    assert _cut(["a", "b"], *stops) == (["a", "b", ""], False)


@given(st.lists(st.text("ab"), max_size=8), st.lists(st.text("ab", max_size=3), max_size=3))
def test_it_cuts_where_the_whole_text_would_be_cut(pieces: list[str], stops: list[str]) -> None:
    said, found = _cut(pieces, *stops)
    whole = "".join(pieces)
    ends = [at for stop in stops if stop and (at := whole.find(stop)) >= 0]
    assert found == bool(ends)
    if len({len(stop) for stop in stops if stop}) <= 1:
        assert "".join(said) == whole[: min(ends, default=len(whole))]
    assert whole.startswith("".join(said))
