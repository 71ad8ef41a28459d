"""Why a connection with TLS did not come about."""

from __future__ import annotations

import ssl


def handshake_failure(error: BaseException) -> str | None:
    """What TLS met, where that is what ``error`` comes from; drivers wrap it. It names no host and no secret."""
    cause: BaseException | None = error
    met: set[int] = set()
    while cause is not None and id(cause) not in met:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted: {cause.verify_message.rstrip('.')}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or type(cause).__name__}"
        met.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None
