"""What one check of `parley doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]
OK: State = "ok"
WARN: State = "warn"
FAIL: State = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """``detail`` says what is; ``advice`` what to do, and is never empty for a failure. No secret is in either."""

    state: State
    what: str
    detail: str
    advice: str = ""
