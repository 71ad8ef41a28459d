"""Why Postgres cannot be used, in words for an operator."""

from __future__ import annotations

import asyncpg

from backplane.security.handshake import handshake_failure


def why(error: BaseException) -> str:
    """The cause and, where a setting is at fault, which one. Has no value of a query and no password."""
    failure = handshake_failure(error)
    if failure is not None:
        return f"{failure}; check sslrootcert in the URL, and that the URL names the host as the certificate does"
    if isinstance(error, asyncpg.ClientConfigurationError):
        return f"its URL cannot be used: {error.args[0]}"
    if isinstance(error, FileNotFoundError):
        return "a file that its URL names is not there: the server's socket, or sslrootcert"
    if type(error) is ConnectionError and "rejected SSL" in str(error):
        return "the server speaks no TLS, and sslmode in the URL demands it"
    return type(error).__name__
