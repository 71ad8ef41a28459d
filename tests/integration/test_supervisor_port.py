from __future__ import annotations

import os
import socket

import pytest

from cli import port
from cli.failures import EX_CONFIG


def test_a_free_port_is_fine() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    port.check("127.0.0.1", number)


def test_a_taken_port_names_who_has_it_and_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(port.PortUnusable) as raised:
            port.check("127.0.0.1", number)
    assert f"port {number} on 127.0.0.1 is taken by" in str(raised.value)
    assert f"(pid {os.getpid()})" in str(raised.value)
    assert "PARLEY_PORT" in str(raised.value)
    assert raised.value.exit_code == EX_CONFIG


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(port.PortUnusable, match=r"port 1 on 192\.0\.2\.1 is not usable"):
        port.check("192.0.2.1", 1)
