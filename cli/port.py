"""Whether the port is free, and who has it."""

from __future__ import annotations

import socket

import psutil

from cli.failures import ConfigurationError


class PortUnusable(ConfigurationError):
    """The port is taken, or the address is not this machine's."""


def check(host: str, port: int) -> None:
    """Raises PortUnusable, with what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        who = owner(port)
        reason = f"taken by {who}" if who else f"not usable ({error.strerror})"
        raise PortUnusable(
            f"port {port} on {host} is {reason}: set PARLEY_PORT to a free port, or stop what uses it"
        ) from None


def owner(port: int) -> str | None:
    """``name (pid n)`` of who listens on ``port``; None where nobody does, or we may not see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            address = tuple(connection.laddr)
            if connection.status == psutil.CONN_LISTEN and address[1:2] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return None
    return None
