"""A broker that asks who is there and speaks TLS: Parley goes round on it, and a wrong token or authority is named."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from backplane.adapters.pulsar_bus import PulsarAddress, PulsarBus
from backplane.ports.bus import Bus, BusError, BusRefused, BusUnavailable, Mode
from cli import secret_files
from event_schemas import topics
from tests.certificates import Authority
from tests.chaos.world import not_ready, works
from tests.e2e.client import Client
from tests.e2e.running import Up
from tests.ports import lasting_ports
from tests.pulsar_broker import PulsarBroker, pulsar_broker

pytestmark = [pytest.mark.pulsar, pytest.mark.timeout(300)]

TEMPORARY, FAILED = 75, 1


@dataclass(frozen=True)
class Guarded:
    broker: PulsarBroker
    url: str
    admin_url: str
    authority: Authority
    stranger: Authority
    secret: bytes
    admin: str
    services: str
    """Tokens of its administrator and of the services, as `parley secrets` makes them."""

    def token(self, role: str, *, expires_at: int | None = None) -> str:
        return web_token(role, self.secret, expires_at)

    def address(self, token: str | None, authority: Authority | None = None) -> PulsarAddress:
        ca_file = (authority or self.authority).file
        return PulsarAddress(self.url, self.admin_url, "parley", "guarded", token, ca_file)

    def environment(self, token: str | None, authority: Authority | None = None) -> dict[str, str]:
        said = {} if token is None else {"PARLEY_BUS__PULSAR__TOKEN": token}
        return said | {
            "PARLEY_BUS__PULSAR__URL": self.url,
            "PARLEY_BUS__PULSAR__ADMIN_URL": self.admin_url,
            "PARLEY_BUS__PULSAR__NAMESPACE": "guarded",
            "PARLEY_BUS__PULSAR__CA_FILE": str((authority or self.authority).file),
        }


def web_token(role: str, secret: bytes, expires_at: int | None = None) -> str:
    claims = {"sub": role} | ({} if expires_at is None else {"exp": expires_at})
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A broker with the key and the tokens of `parley secrets`."""
    folder = tmp_path_factory.mktemp("guarded")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    certificate, key = authority.sign("broker")
    made = folder / "secrets"
    secret_files.write(made, "postgres:5432/parley", "redis:6379")
    admin, services = ((made / name).read_text() for name in ("pulsar_admin_token", "PARLEY_BUS__PULSAR__TOKEN"))
    port, admin_port = lasting_ports(2)
    with pulsar_broker(
        folder / "broker",
        admin_token=admin,
        brokerServicePortTls=str(port),
        webServicePortTls=str(admin_port),
        tlsCertificateFilePath=str(certificate),
        tlsKeyFilePath=str(key),
        tlsTrustCertsFilePath=str(authority.file),
        authenticationEnabled="true",
        authorizationEnabled="true",
        authenticationProviders="org.apache.pulsar.broker.authentication.AuthenticationProviderToken",
        tokenSecretKey=f"file://{made}/pulsar_token_key",
        superUserRoles=secret_files.PULSAR_ADMINISTRATOR,
        brokerClientAuthenticationPlugin="org.apache.pulsar.client.impl.auth.AuthenticationToken",
        brokerClientAuthenticationParameters=f"token:{admin}",
    ) as broker:
        url, admin_url = f"pulsar+ssl://127.0.0.1:{port}", f"https://127.0.0.1:{admin_port}"
        secret = (made / "pulsar_token_key").read_bytes()
        yield Guarded(broker, url, admin_url, authority, stranger, secret, admin, services)


@pytest.fixture(scope="module")
def up(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("up"), **guarded.environment(guarded.admin))
    with up.serving():
        yield up


@pytest.fixture
async def administrator(guarded: Guarded) -> AsyncIterator[Bus]:
    bus = PulsarBus(guarded.address(guarded.admin))
    await bus.create_topics(["t"], partitions=1)
    yield bus
    await bus.close()


async def test_a_prompt_goes_round_with_a_token_over_tls(guarded: Guarded, up: Up) -> None:
    async with Client(up.url, up.admin_key) as client:
        assert await not_ready(client) == {}
        await works(client)
    said = " ".join((await asyncio.to_thread(up.parley, "doctor")).split())
    assert f"Pulsar, parley/guarded at {guarded.url} answers" in said


def test_without_permission_it_says_what_is_missing(tmp_path: Path, guarded: Guarded) -> None:
    nobody = guarded.token("nobody")
    for number, token in enumerate((None, nobody)):
        stranger = Up(tmp_path / str(number), **guarded.environment(token))
        said = stranger.parley("pulsar", "setup", code=FAILED)
        assert "check bus.pulsar.token" in said
        assert nobody not in said


async def test_a_role_that_is_granted_publishes_and_reads(tmp_path: Path, guarded: Guarded) -> None:
    namespace = {"PARLEY_BUS__PULSAR__NAMESPACE": "granted"}
    admin = Up(tmp_path, **guarded.environment(guarded.admin) | namespace)
    await asyncio.to_thread(admin.parley, "pulsar", "setup", "--grant", secret_files.PULSAR_SERVICE)
    bus = PulsarBus(replace(guarded.address(guarded.services), namespace="granted"))
    try:
        await bus.ping()
        consumer = await bus.subscribe([topics.CONTROL], topics.WORKERS, Mode.SHARED, prefetch=1)
        await bus.publish(topics.CONTROL, b"x")
        (message,) = await asyncio.wait_for(consumer.receive(), 30.0)
        assert message.payload == b"x"
        assert sum(await bus.backlog(topics.CONTROL, topics.WORKERS)) == 1
        assert any(await bus.heads(topics.CONTROL))
        await consumer.ack(message)
        with pytest.raises(BusRefused, match=r"bus\.pulsar\.token"):
            await bus.create_topics(["another"], partitions=1)
    finally:
        await bus.close()


async def fails(guarded: Guarded, token: str, match: str, *, by_client: type[BusError]) -> None:
    """``by_client`` is what is made of what Pulsar's client says; its admin API says itself who may not."""
    bus = PulsarBus(guarded.address(token))
    try:
        for call, kind in (
            (lambda: bus.publish("t", b"x"), by_client),
            (lambda: bus.subscribe(["t"], "s", Mode.SHARED, prefetch=1), by_client),
            (lambda: bus.read("t", 0, after=None, limit=1), by_client),
            (lambda: bus.backlog("t", "s"), BusRefused),
        ):
            with pytest.raises(kind, match=match) as failure:
                await call()
            assert token not in str(failure.value)
    finally:
        await bus.close()


async def test_a_role_without_permission_neither_publishes_nor_reads(guarded: Guarded, administrator: Bus) -> None:
    await administrator.publish("t", b"x")
    await fails(guarded, guarded.token("nobody"), r"check bus\.pulsar\.token", by_client=BusRefused)


async def test_a_role_that_may_produce_and_consume_needs_no_more(guarded: Guarded, administrator: Bus) -> None:
    path = "namespaces/parley/guarded/permissions/service"
    await asyncio.to_thread(guarded.broker.admin, "POST", path, ["produce", "consume"])
    bus = PulsarBus(guarded.address(guarded.token("service")))
    try:
        consumer = await bus.subscribe(["t"], "service", Mode.FAILOVER, prefetch=1)
        await bus.publish("t", b"served")
        async with asyncio.timeout(30):
            seen: set[bytes] = set()
            while b"served" not in seen:
                messages = await consumer.receive(10)
                seen |= {each.payload for each in messages}
                await consumer.ack(*messages)
        assert len(await bus.backlog("t", "service")) == len(await bus.heads("t")) == 1
    finally:
        await bus.close()


async def test_an_expired_token_is_named_with_its_time_and_refuses_no_publish(
    guarded: Guarded, administrator: Bus
) -> None:
    await administrator.publish("t", b"x")
    expired = guarded.token("admin", expires_at=int(time.time()) - 3600)
    advice = r"bus\.pulsar\.token expired at 20..-..-..T..:..:..\+00:00: set a new one"
    await fails(guarded, expired, advice, by_client=BusUnavailable)


def test_the_command_line_says_that_a_token_expired(tmp_path: Path, guarded: Guarded) -> None:
    expired = guarded.token("admin", expires_at=int(time.time()) - 3600)
    said = Up(tmp_path, **guarded.environment(expired)).parley("pulsar", "setup", code=FAILED)
    assert "bus.pulsar.token expired at" in said
    assert expired not in said


async def test_a_broker_that_another_authority_signed_is_not_believed(guarded: Guarded) -> None:
    bus = PulsarBus(guarded.address(guarded.admin, guarded.stranger))
    try:
        for call in (lambda: bus.publish("t", b"x"), bus.ping, lambda: bus.backlog("t", "s")):
            with pytest.raises(BusUnavailable, match=r"bus\.pulsar\.ca_file") as failure:
                await call()
            assert guarded.admin not in str(failure.value)
    finally:
        await bus.close()
    with pytest.raises(BusUnavailable, match="certificate is not trusted"):
        await bus.heads("t")


def test_the_command_line_says_that_an_authority_is_another(tmp_path: Path, guarded: Guarded) -> None:
    up = Up(tmp_path, **guarded.environment(guarded.admin, guarded.stranger))
    said = up.parley("pulsar", "setup", code=TEMPORARY)
    assert "the server's certificate is not trusted" in said
    assert "check bus.pulsar.ca_file" in said
