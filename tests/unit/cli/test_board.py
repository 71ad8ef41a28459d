from __future__ import annotations

import sys

import pytest

from cli.board import Board


def test_progress_in_lines_comes_in_steps_and_ends_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    with Board() as board:
        for percent in range(0, 101, 5):
            board.progress("worker", "loading", percent / 100)
        board.done("worker")
        board.line("[bold] is text")
    told = ["worker: loading: 0%", "worker: loading: 25%", "worker: loading: 50%", "worker: loading: 75%"]
    assert capsys.readouterr().out.splitlines() == [*told, "worker: loading: 100%", "[bold] is text"]


def test_progress_can_be_left_out_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Board(plain_progress=False) as board:
        board.progress("messages", "reading", 0.5)
    assert capsys.readouterr().out == ""


def test_on_a_terminal_a_bar_goes_when_its_source_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with Board() as board:
        board.progress("worker", "loading [x]", 0.5)
        board.progress("worker", "warming up", 0.9)
        board.done("worker")
        capsys.readouterr()
        board.line("ready [x]")
        board.done("worker")
    assert capsys.readouterr().out == "ready [x]\n"
