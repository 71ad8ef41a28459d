from pathlib import Path

import pytest

from cli.child import last_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first\nsecond\n", "second"),
        ("only\n\n  \n", "only"),
        ('{"message": "port taken", "level": "ERROR"}\n', "port taken"),
        ('{"other": 1}\n', '{"other": 1}'),
        ("", ""),
        ("x" * 9000 + "\n", "x" * 300),
    ],
)
def test_the_last_thing_a_log_says(tmp_path: Path, text: str, expected: str) -> None:
    log = tmp_path / "child.log"
    log.write_text(text)
    assert last_line(log) == expected


def test_a_log_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert last_line(tmp_path / "none.log") == ""
