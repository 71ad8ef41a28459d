"""Ports for servers that a test kills and starts again."""

from __future__ import annotations

import random
import socket


def lasting_ports(count: int) -> list[int]:
    """Free ports that no outgoing connection is ever given (the kernel's own begin at 32768).

    While their server is away, a client that tries to reach it again and again could else be given that very port as
    its own: it would meet itself there, and the server could not come back.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
