"""Which errors of all packages are expected: shown as one line, with an exit code. Everything else is a bug."""

from __future__ import annotations

from backplane.ports.bus import BusError, BusUnavailable
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.token_stream import StreamUnavailable
from backplane.settings.prices import UnusablePrices
from backplane.wiring.embedded import EmbeddedServerError
from backplane.wiring.services import NotConfigured
from cli.failures import EX_CONFIG, EX_TEMPFAIL, FAILED, CommandError
from workers.inference.gguf import ModelError
from workers.inference.port import BackendError
from workers.keys import UnusableKey

TEMPORARY = (DatabaseUnavailable, BusUnavailable, StreamUnavailable)
PERMANENT = (EmbeddedServerError, NotConfigured, ModelError, BackendError, UnusableKey, UnusablePrices)
EXPECTED = (CommandError, *TEMPORARY, *PERMANENT, BusError, OSError)


def exit_code(error: BaseException) -> int:
    """The exit code for an expected error."""
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, TEMPORARY):
        return EX_TEMPFAIL
    return EX_CONFIG if isinstance(error, PERMANENT) else FAILED


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
