"""What may go wrong on the command line without being a bug.

CommandError               1    said in one line
├── TryAgain              75    a server does not answer right now (EX_TEMPFAIL)
└── ConfigurationError    78    nothing gets better without the operator (EX_CONFIG)
"""

from __future__ import annotations

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
