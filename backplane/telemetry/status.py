"""What a service tells whoever started it: one JSON object a line on standard output, when asked for it."""

from __future__ import annotations

import json
import os
import sys

ASKED_FOR = "PARLEY_STATUS"
"""Environment variable that a supervisor sets to `1`."""


def progress(what: str, share: float) -> None:
    """``share`` of ``what`` is done, 0 to 1."""
    _tell({"progress": what, "share": round(min(max(share, 0.0), 1.0), 3)})


def ready(detail: str = "") -> None:
    """The service does its work from now on."""
    _tell({"ready": True, "detail": detail})


def blocked(what: str, why: str) -> None:
    """The service runs, and cannot do its work because of ``why``. It goes on trying, or waits for an operator."""
    _tell({"blocked": what, "why": why})


def failed(why: str) -> None:
    """The service ends because of ``why``: one line for people, without secrets."""
    _tell({"failed": why})


def _tell(line: dict[str, object]) -> None:
    if os.environ.get(ASKED_FOR) == "1":
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
