from __future__ import annotations

import hashlib
import json
from typing import Any

from projections.bus_comparison import same_but_cut

SEALED = {"commitment": "ab" * 32, "sealed": "c2VhbGVk"}
CUT = {"commitment": "ab" * 32, "sealed_sha256": hashlib.sha256(b"c2VhbGVk").hexdigest()}


def line(content: Any, attempt: int = 1) -> bytes:
    return json.dumps({"type": "thing.said.v1", "data": {"attempt": attempt, "content": content}}).encode()


def test_ciphertext_that_was_cut_off_is_no_difference() -> None:
    assert same_but_cut(line(CUT), line(SEALED))
    assert same_but_cut(line(CUT), line(CUT))


def test_nothing_else_may_differ() -> None:
    assert not same_but_cut(line(CUT, attempt=2), line(SEALED))
    assert not same_but_cut(line(CUT | {"commitment": "cd" * 32}), line(SEALED))
    assert not same_but_cut(line(SEALED | {"sealed": "b3RoZXI="}), line(SEALED))
    assert not same_but_cut(line(None), line(SEALED))
    assert not same_but_cut(line({}), line({"text": "said"}))
