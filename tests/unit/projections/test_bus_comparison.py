from __future__ import annotations

import json
from typing import Any

from projections.bus_comparison import same_but_erased

SEALED = {"commitment": "ab" * 32, "sealed": "c2VhbGVk"}
CUT = {"commitment": "ab" * 32}


def line(content: Any, attempt: int = 1) -> bytes:
    return json.dumps({"type": "thing.said.v1", "data": {"attempt": attempt, "content": content}}).encode()


def test_content_that_was_erased_from_the_record_is_no_difference() -> None:
    assert same_but_erased(line(CUT), line(SEALED))
    assert same_but_erased(line(CUT), line(CUT))


def test_nothing_else_may_differ() -> None:
    assert not same_but_erased(line(CUT, attempt=2), line(SEALED))
    assert not same_but_erased(line({"commitment": "cd" * 32}), line(SEALED))
    assert not same_but_erased(line(SEALED | {"sealed": "b3RoZXI="}), line(SEALED))
    assert not same_but_erased(line(None), line(SEALED))
    assert not same_but_erased(line({}), line({"text": "said"}))
