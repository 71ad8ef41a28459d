"""What stands in the compose file, as it is called on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.translation import Translation

HERE = Translation(
    {
        "redis:6379": ["127.0.0.1:21001"],
        "command-api:8000": ["127.0.0.1:21002", "127.0.0.1:21003"],
        "api:8000": ["127.0.0.1:21004"],
    },
    {8000: 22000},
    {"/run/secrets": Path("/here/secrets"), "/data": Path("/here/data")},
)


@pytest.mark.parametrize(
    ("inside", "here"),
    [
        ("redis://user:word@redis:6379/0", "redis://user:word@127.0.0.1:21001/0"),
        ("command-api:8000", "127.0.0.1:21002 127.0.0.1:21003"),
        ("http://127.0.0.1:8000/readyz", "http://127.0.0.1:22000/readyz"),
        ("curl --port=8000; redis-cli -p 8000 ping", "curl --port=22000; redis-cli -p 22000 ping"),
        ("8000", "22000"),
        ('["file:/run/secrets/provider_key"]', '["file:/here/secrets/provider_key"]'),
        ("file:///run/secrets/key", "file:///here/secrets/key"),
        ("/data", "/here/data"),
    ],
)
def test_addresses_ports_and_folders_are_replaced(inside: str, here: str) -> None:
    assert HERE(inside) == HERE.variable(inside) == here


@pytest.mark.parametrize("text", ["redis", "768mb", "max 8000", "/database", "/var/data-x", "redis:63790", "80001"])
def test_nothing_else_is(text: str) -> None:
    assert HERE(text) == text


def test_a_variable_may_be_a_host_alone() -> None:
    assert HERE.variable("redis") == HERE.variable("0.0.0.0") == "127.0.0.1"
    assert HERE.variable("redistribute") == "redistribute"
