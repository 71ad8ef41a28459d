"""Requests for somebody else: what they reach, by name and by address, over real connections."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backplane.security.public_address import NotPublic
from backplane.security.public_transport import Lookup, PublicTransport
from tests.receiver import receiver


def names(**known: list[str]) -> Lookup:
    async def lookup(host: str, port: int) -> list[str]:
        return known[host.replace(".", "_")]

    return lookup


def client(
    *, allow_private: bool = False, lookup: Lookup | None = None, verify: ssl.SSLContext | bool = True
) -> httpx.AsyncClient:
    transport = PublicTransport(allow_private=allow_private, lookup=lookup, verify=verify)
    return httpx.AsyncClient(transport=transport, trust_env=False, timeout=5)


def certificate(folder: Path, *hosts: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server of ``hosts`` has, and what its clients have who trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "receiver.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=file)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://localhost/",
        # A resolver reads these as 127.0.0.1.
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://0/",
    ],
)
async def test_no_form_of_a_local_address_is_reached(url: str) -> None:
    async with client() as one:
        with pytest.raises((NotPublic, httpx.InvalidURL), match=r"is not on the internet|Invalid IPv4"):
            await one.get(url)


async def test_a_name_is_not_reached_if_only_one_of_its_addresses_is_private() -> None:
    async with client(lookup=names(both_example=["1.1.1.1", "10.0.0.1"])) as one:
        with pytest.raises(NotPublic) as refused:
            await one.get("https://both.example/")
    assert "10.0.0.1" not in str(refused.value)


async def test_without_leave_no_request_goes_out_in_the_clear() -> None:
    async with client(lookup=names(public_example=["1.1.1.1"])) as one:
        with pytest.raises(NotPublic, match="not https"):
            await one.get("http://public.example/")


async def test_a_name_is_asked_for_once_and_connected_to_as_it_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is public when it is checked and private when it is connected to."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["192.0.2.1"] if len(asked) == 1 else ["127.0.0.1"]

    monkeypatch.setattr("backplane.security.public_transport.is_public", lambda address: address == "192.0.2.1")
    async with receiver() as local, client(lookup=rebinding) as one:
        port = httpx.URL(local.url).port
        with pytest.raises(httpx.TransportError):
            await one.get(f"https://rebinding.example:{port}/", timeout=1)
        assert asked == ["rebinding.example"]
        assert local.most_at_once == 0
        with pytest.raises(NotPublic):
            await one.get(f"https://rebinding.example:{port}/", timeout=1)
        assert local.most_at_once == 0


async def test_a_redirect_is_checked_like_a_request_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backplane.security.public_transport.is_public", lambda address: address == "127.0.0.1")
    server, trusting = certificate(tmp_path, "hook.example")
    lookup = names(hook_example=["127.0.0.1"], inner_example=["10.0.0.1"])
    async with receiver(server) as local, client(lookup=lookup, verify=trusting) as one:
        local.otherwise = "302 Found\r\nLocation: https://inner.example/"
        with pytest.raises(NotPublic, match=r"inner\.example"):
            await one.get(f"https://hook.example:{httpx.URL(local.url).port}/", follow_redirects=True)
    assert len(local.deliveries) == 1


async def test_tls_is_checked_against_the_name_although_an_address_is_connected_to(tmp_path: Path) -> None:
    server, trusting = certificate(tmp_path, "hook.example")
    lookup = names(hook_example=["127.0.0.1"], other_example=["127.0.0.1"])
    async with receiver(server) as local:
        port = httpx.URL(local.url).port
        async with client(allow_private=True, lookup=lookup, verify=trusting) as one:
            response = await one.post(f"https://hook.example:{port}/hook?a=1", content=b"body")
            assert response.status_code == 204
            (seen,) = local.deliveries
            assert (seen.headers["host"], seen.path, seen.body) == (f"hook.example:{port}", "/hook?a=1", b"body")
            with pytest.raises(httpx.ConnectError, match=r"(?i)hostname|certificate"):
                await one.post(f"https://other.example:{port}/hook")
        async with client(allow_private=True, lookup=lookup) as one:
            with pytest.raises(httpx.ConnectError, match=r"(?i)self.signed"):
                await one.post(f"https://hook.example:{port}/hook")
    assert len(local.deliveries) == 1


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    async with receiver() as local:
        port = httpx.URL(local.url).port
        lookup = names(hook_example=["::1", "127.0.0.1"])
        async with client(allow_private=True, lookup=lookup) as one:
            assert (await one.post(f"http://hook.example:{port}/", content=b"body")).status_code == 204
    assert [one.body for one in local.deliveries] == [b"body"]


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver() as proxy, receiver() as local:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with client(allow_private=True) as one:
            assert (await one.get(local.url)).status_code == 204
    assert (len(proxy.deliveries), len(local.deliveries)) == (0, 1)


async def test_names_that_are_no_names_are_an_error_like_any_other() -> None:
    async with client() as one:
        for host in ("a" * 64 + ".example", "nothing.invalid"):
            with pytest.raises(httpx.ConnectError, match="cannot be resolved"):
                await one.get(f"https://{host}/")
