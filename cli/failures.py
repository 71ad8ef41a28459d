"""What may go wrong on the command line without being a bug, and the exit code of each.

CommandError               1    said in one line
├── TryAgain              75    a server does not answer right now (EX_TEMPFAIL)
└── ConfigurationError    78    nothing gets better without the operator (EX_CONFIG)
"""

from __future__ import annotations

from backplane.ports.bus import BusError, BusUnavailable
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.token_stream import StreamUnavailable
from backplane.wiring.embedded import EmbeddedServerError
from workers.inference.port import BackendError

FAILED = 1
EX_TEMPFAIL = 75
EX_CONFIG = 78


class CommandError(Exception):
    """Says what is wrong, where, and what to do; shown without a traceback."""

    exit_code = FAILED


class TryAgain(CommandError):
    exit_code = EX_TEMPFAIL


class ConfigurationError(CommandError):
    exit_code = EX_CONFIG


TEMPORARY = (DatabaseUnavailable, BusUnavailable, StreamUnavailable)
PERMANENT = (EmbeddedServerError, BackendError)
EXPECTED = (CommandError, *TEMPORARY, *PERMANENT, BusError)
"""Shown as one line. Everything else is a bug and shows where it happened."""


def exit_code(error: BaseException) -> int:
    """The exit code for an expected error."""
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, TEMPORARY):
        return EX_TEMPFAIL
    return EX_CONFIG if isinstance(error, PERMANENT) else FAILED


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
