"""Data keys wrapped by a Vault: what it costs, and what becomes of us while it fails."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from backplane.adapters.vault import VaultTransit, transit
from backplane.ports.identifiers import new_id
from backplane.ports.key_wrapping import CannotUnwrap, WrappingRefused, WrappingUnavailable
from backplane.security.content import DataKeys
from backplane.security.sealing import MasterKey
from backplane.settings import SecuritySettings, Settings
from backplane.wiring.services import NotConfigured, open_data_keys
from tests.vault.server import KEY, MOUNT, TOKEN, Vault, vault

A_KEY, MASTER = os.urandom(32), "5a" * 32


@pytest.fixture
async def server() -> AsyncIterator[Vault]:
    async with vault() as made:
        yield made


@pytest.fixture
async def wrapping(server: Vault) -> AsyncIterator[VaultTransit]:
    made = server.transit(timeout_s=0.5)
    yield made
    await made.aclose()


def settings(server: Vault, **other: object) -> Settings:
    whole = {"vault_url": server.url, "vault_mount": MOUNT, "vault_key": KEY, "vault_token": TOKEN}
    return Settings(security=SecuritySettings.model_validate({"master_key": MASTER} | whole | other))


async def test_a_key_is_asked_for_once(server: Vault, wrapping: VaultTransit) -> None:
    wrapped = await wrapping.wrap(A_KEY, "here")
    assert [await wrapping.unwrap(wrapped, "here") for _ in range(3)] == [A_KEY] * 3
    assert server.asked == [f"/v1/{MOUNT}/encrypt/{KEY}"]


async def test_it_is_forgotten_after_minutes(server: Vault) -> None:
    now = 0.0
    wrapping = server.transit(clock=lambda: now)
    wrapped = await wrapping.wrap(A_KEY, "here")
    now = 299.0
    assert await wrapping.unwrap(wrapped, "here") == A_KEY
    assert len(server.asked) == 1
    now = 301.0
    assert await wrapping.unwrap(wrapped, "here") == A_KEY
    assert server.asked[1:] == [f"/v1/{MOUNT}/decrypt/{KEY}"]
    await wrapping.aclose()


async def test_only_the_last_used_are_remembered(
    server: Vault, wrapping: VaultTransit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transit, "_REMEMBERED", 2)
    first, second = [await wrapping.wrap(A_KEY, "here") for _ in range(2)]
    await wrapping.unwrap(first, "here")
    await wrapping.wrap(A_KEY, "here")
    asked = len(server.asked)
    await wrapping.unwrap(first, "here")
    assert len(server.asked) == asked
    await wrapping.unwrap(second, "here")
    assert len(server.asked) == asked + 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 307, 412])
async def test_it_is_away_while_it_is_sealed_or_too_busy(server: Vault, wrapping: VaultTransit, status: int) -> None:
    wrapped = await wrapping.wrap(A_KEY, "here")
    afresh = server.transit()
    server.fault = status
    with pytest.raises(WrappingUnavailable, match=f"failed at .*encrypt/parley: {status} by the test") as told:
        await wrapping.wrap(A_KEY, "here")
    assert not isinstance(told.value, WrappingRefused)
    with pytest.raises(WrappingUnavailable, match=f"decrypt/parley: {status}"):
        await afresh.unwrap(wrapped, "here")
    server.fault = None
    assert await afresh.unwrap(wrapped, "here") == A_KEY
    await afresh.aclose()


GARBAGE = [
    b"220 mail.example.com ESMTP\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot JSON!",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"data": {}}',
    b'HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n{"data":{"ciphertext":1,"plaintext":null}}',
    b'HTTP/1.1 200 OK\r\nContent-Length: 47\r\n\r\n{"data":{"ciphertext":"me!","plaintext":"me!" }}',
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnone",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\n<html>",
    b'HTTP/1.1 500 Oh\r\nContent-Length: 14\r\n\r\n{"errors":[1]}',
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_what_is_no_vault_answers_like_none(server: Vault, wrapping: VaultTransit, garbage: bytes) -> None:
    server.fault = garbage
    with pytest.raises(WrappingUnavailable) as told:
        await wrapping.wrap(A_KEY, "here")
    assert server.url in str(told.value)
    with pytest.raises(WrappingUnavailable):
        await wrapping.unwrap(b"vault:v1:whatever", "here")


async def test_who_never_answers_is_not_waited_for(server: Vault, wrapping: VaultTransit) -> None:
    server.fault = b""
    with pytest.raises(WrappingUnavailable, match=r"did not answer within 0\.5 s"):
        await wrapping.wrap(A_KEY, "here")


async def test_nobody_is_there(server: Vault) -> None:
    async with vault() as other:
        gone = other.transit()
    with pytest.raises(WrappingUnavailable, match=r"does not answer \(ConnectError\): check that it runs"):
        await gone.wrap(A_KEY, "here")
    await gone.aclose()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"token": "hvs.canary"}, "does not allow .*403 permission denied.*check security.vault_token"),
        ({"mount": "elsewhere"}, "404 no handler for route.*check security.vault_mount and security.vault_key"),
        ({"key": "unknown"}, "400 encryption key not found.*check security.vault_mount and security.vault_key"),
    ],
)
async def test_a_wrong_setting_is_named_and_no_key_counts_as_lost(
    server: Vault, wrapping: VaultTransit, wrong: dict[str, str], told: str
) -> None:
    wrapped = await wrapping.wrap(A_KEY, "here")
    stranger = VaultTransit(server.address(**wrong))
    for asking in (stranger.wrap(A_KEY, "here"), stranger.unwrap(wrapped, "here")):
        with pytest.raises(WrappingRefused, match=told) as caught:
            await asking
        assert "canary" not in str(caught.value)
    await stranger.aclose()


async def test_a_key_that_cannot_hold_a_place_is_refused(server: Vault, wrapping: VaultTransit) -> None:
    server.fault = 400
    with pytest.raises(WrappingRefused, match="use a key of the type aes256-gcm96"):
        await wrapping.wrap(A_KEY, "here")
    with pytest.raises(CannotUnwrap, match=r"set the former security\.vault_key again, or restore"):
        await wrapping.unwrap(b"vault:v1:whatever", "here")


async def test_the_token_is_read_from_its_file_each_time(server: Vault, tmp_path: Path) -> None:
    file = tmp_path / "token"
    with pytest.raises(WrappingRefused, match="token cannot be read: FileNotFoundError"):
        VaultTransit(server.address(token_file=file))
    for unusable in ("", "two\nlines", "ü"):
        file.write_text(unusable)
        with pytest.raises(WrappingRefused, match="does not hold one token"):
            VaultTransit(server.address(token_file=file))
    file.write_text(f"{TOKEN}\n")
    wrapping = VaultTransit(server.address(token="old", token_file=file))
    await wrapping.wrap(A_KEY, "here")
    server.token = "renewed"
    with pytest.raises(WrappingRefused):
        await wrapping.wrap(A_KEY, "here")
    file.write_text("renewed")
    await wrapping.wrap(A_KEY, "here")
    await wrapping.aclose()


async def test_what_the_master_key_wrapped_before_still_opens(server: Vault) -> None:
    tenant, conversation = new_id(), new_id()
    _, before = await DataKeys(MasterKey(MASTER)).make(tenant, conversation)
    async with open_data_keys(settings(server)) as keys:
        await keys.unwrap(before, tenant, conversation)
        assert not server.asked
        _, since = await keys.make(tenant, conversation)
        assert since.startswith(b"vault:v1:")
    async with open_data_keys(settings(server, vault_url=None)) as keys:
        with pytest.raises(CannotUnwrap, match=r"security\.vault_url is not set; set it again"):
            await keys.unwrap(since, tenant, conversation)


@pytest.mark.parametrize("setting", ["vault_token_file", "vault_ca_file"])
async def test_a_file_that_is_not_there_is_told_at_the_start(server: Vault, tmp_path: Path, setting: str) -> None:
    with pytest.raises(NotConfigured, match=f"security.{setting}: .* cannot be read: FileNotFoundError"):
        async with open_data_keys(settings(server, **{setting: tmp_path / "nothing"})):
            raise AssertionError("it was opened")


def test_a_ca_file_without_certificates_is_refused(server: Vault, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(WrappingRefused, match="vault_ca_file"):
        server.address(ca_file=file).trusted()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"vault_url": "http://vault.example.com"}, "use https://"),
        ({"vault_key": None}, r"security\.vault_key is not; name the key"),
        ({"vault_token": None}, r"set security\.vault_token or security\.vault_token_file"),
        ({"vault_mount": "../sys"}, None),
        ({"vault_key": "a/b"}, None),
    ],
)
def test_settings_that_cannot_work_are_refused(server: Vault, wrong: dict[str, object], told: str | None) -> None:
    with pytest.raises(ValidationError, match=told):
        settings(server, **wrong)


def test_the_token_is_in_no_repr(server: Vault) -> None:
    assert TOKEN not in repr(server.address())
    assert TOKEN not in repr(settings(server))
