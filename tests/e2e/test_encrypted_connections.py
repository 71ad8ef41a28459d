"""Postgres and Redis over TLS: a prompt goes round, and what is read where a certificate is not believed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest
import redis

from backplane.adapters.embedded.account import Command, identity, private_folder
from backplane.adapters.embedded.postgres import OWNER
from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.adapters.redis.connection import ping
from backplane.ports.bus import BusUnavailable
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.token_stream import StreamUnavailable
from tests.certificates import Authority
from tests.chaos.world import not_ready, works
from tests.conftest import PASSWORD, Server, start_postgres, start_valkey
from tests.e2e.client import Client
from tests.e2e.running import Up
from tests.ports import lasting_ports
from tests.tls_front import tls_front

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Encrypted:
    """Servers that nothing reaches without TLS."""

    postgres_port: int
    redis_port: int
    authority: Authority
    stranger: Authority

    def postgres(self, host: str = "127.0.0.1", authority: Authority | None = None, mode: str = "verify-full") -> str:
        query = urlencode({"sslmode": mode, "sslrootcert": (authority or self.authority).file})
        return f"postgresql://{OWNER}:{PASSWORD}@{host}:{self.postgres_port}/postgres?{query}"

    def redis(self, host: str = "127.0.0.1", authority: Authority | None = None) -> str:
        query = urlencode({"ssl_ca_certs": (authority or self.authority).file})
        return f"rediss://{host}:{self.redis_port}/0?{query}"


@pytest.fixture(scope="module", params=["behind a front", "Debian's own"])
def encrypted(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[Encrypted]:
    """The wheels' servers are built without TLS, so it stands before them; Debian's speak it themselves."""
    folder = short_folder / f"encrypted-{request.param.replace(' ', '-')}"
    folder.mkdir(mode=0o755)
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    with contextlib.ExitStack() as stack:
        opened = _fronted if request.param == "behind a front" else _debians
        yield Encrypted(*stack.enter_context(opened(folder, authority)), authority, stranger)


@contextlib.contextmanager
def _fronted(folder: Path, authority: Authority) -> Iterator[tuple[int, int]]:
    certificate, key = authority.sign("front")
    postgres = start_postgres(folder / "servers")
    valkey = start_valkey(folder / "servers")
    try:
        socket = postgres.embedded.socket_dir / ".s.PGSQL.5432"
        with (
            tls_front(socket, certificate, key, asked_first=True) as postgres_port,
            tls_front(Path(valkey.url.removeprefix("unix://")), certificate, key, asked_first=False) as redis_port,
        ):
            yield postgres_port, redis_port
    finally:
        valkey.server.stop()
        postgres.server.stop()


@contextlib.contextmanager
def _debians(folder: Path, authority: Authority) -> Iterator[tuple[int, int]]:
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    redis_server = shutil.which("redis-server")
    if not postgres or redis_server is None:
        pytest.skip("Debian's postgresql and redis-server are not both here")
    uid, gid = identity()
    certificate, key = authority.sign("debian")
    if uid is not None and gid is not None:
        shutil.chown(key, uid, gid)
    cluster = private_folder(folder / "postgres", uid, gid)
    folder.chmod(0o755)
    password = folder / "password"
    password.write_text(PASSWORD)
    subprocess.run(
        [postgres[-1].with_name("initdb"), "-D", cluster, "-U", OWNER, "-A", "scram-sha-256", "--pwfile", password],
        check=True,
        capture_output=True,
        cwd=cluster,
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
    )
    (cluster / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    postgres_port, redis_port = lasting_ports(2)
    options = {
        "listen_addresses": "127.0.0.1",
        "port": postgres_port,
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": certificate,
        "ssl_key_file": key,
        "max_connections": 300,
        "fsync": "off",
    }
    argv = [str(postgres[-1]), "-D", str(cluster), *(f"--{name}={value}" for name, value in options.items())]
    # Not asyncpg: what it does to a server that is still starting leaves its socket open.
    is_ready = [str(postgres[-1].with_name("pg_isready")), "--host", "127.0.0.1", "--port", str(postgres_port)]

    def accepts() -> None:
        subprocess.run(is_ready, check=True, capture_output=True)

    def greet() -> None:
        with redis.Redis(host="127.0.0.1", port=redis_port, ssl=True, ssl_ca_certs=str(authority.file)) as client:
            client.ping()

    with contextlib.ExitStack() as stack:
        for name, arguments, answers in (
            ("postgres", argv, accepts),
            (
                "redis",
                [
                    *(redis_server, "--port", "0", "--tls-port", str(redis_port), "--bind", "127.0.0.1"),
                    *("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"),
                    *("--save", "", "--appendonly", "no"),
                ],
                greet,
            ),
        ):
            server = Server(
                Command(tuple(arguments), cluster, folder / f"{name}.log", uid, gid), answers, signal.SIGINT
            )
            server.start()
            stack.callback(server.stop)
        yield postgres_port, redis_port


@pytest.fixture(scope="module")
def up(encrypted: Encrypted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up(
        tmp_path_factory.mktemp("up"), PARLEY_POSTGRES__URL=encrypted.postgres(), PARLEY_REDIS__URL=encrypted.redis()
    )
    with up.serving():
        yield up


@pytest.fixture
async def client(up: Up) -> AsyncIterator[Client]:
    async with Client(up.url, up.admin_key) as opened:
        yield opened


async def test_a_prompt_goes_round_over_tls(client: Client, up: Up, encrypted: Encrypted) -> None:
    assert await not_ready(client) == {}
    await works(client)
    said = await asyncio.to_thread(up.parley, "rebuild", "all", "--check")
    assert "equals" in said
    said = " ".join((await asyncio.to_thread(up.parley, "doctor")).split())
    assert "the one that postgres.url names answers" in said
    assert "the one that redis.url names answers" in said


async def test_postgres_is_not_believed(encrypted: Encrypted) -> None:
    """By another's certificate, under another name, or without any."""
    untrusted = "certificate is not trusted: .*check sslrootcert in the URL"
    for url, advice in (
        (encrypted.postgres(authority=encrypted.stranger), untrusted),
        (encrypted.postgres(host="localhost"), untrusted),
        (
            encrypted.postgres().replace("sslrootcert=", "sslrootcert=%2Fnot%2Fthere"),
            "a file that its URL names is not",
        ),
        (encrypted.postgres(mode="verify"), "its URL cannot be used: `sslmode` parameter must be one of"),
    ):
        database, bus = PostgresDatabase(url, pool_size=1), PostgresBus(url)
        for call, kind in ((database.ping, DatabaseUnavailable), (bus.ping, BusUnavailable)):
            with pytest.raises(kind, match=advice) as refused:
                await call()
            assert PASSWORD not in str(refused.value)
        await bus.close()
        await database.close()


async def test_a_postgres_that_speaks_no_tls_is_not_spoken_to(encrypted: Encrypted) -> None:
    came_after: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def deny(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        writer.write(b"N")
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        came_after.set_result(said)

    async with await asyncio.start_server(deny, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        database = PostgresDatabase(
            encrypted.postgres().replace(f":{encrypted.postgres_port}/", f":{port}/"), pool_size=1
        )
        with pytest.raises(DatabaseUnavailable, match="the server speaks no TLS, and sslmode in the URL demands it"):
            await database.ping()
        await database.close()
        async with asyncio.timeout(20):
            assert await came_after == b""  # no name and no password


async def test_redis_is_not_believed(encrypted: Encrypted) -> None:
    for url in (encrypted.redis(authority=encrypted.stranger), encrypted.redis(host="localhost")):
        with pytest.raises(StreamUnavailable, match=r"certificate is not trusted: .*check ssl_ca_certs in redis\.url"):
            await ping(url)


async def test_nothing_is_said_without_tls(encrypted: Encrypted) -> None:
    with pytest.raises(StreamUnavailable):
        await ping(f"redis://127.0.0.1:{encrypted.redis_port}/0")
    plain = PostgresDatabase(encrypted.postgres(mode="disable"), pool_size=1)
    with pytest.raises(DatabaseUnavailable):
        await plain.ping()
    await plain.close()


async def test_the_command_line_says_what_to_do(tmp_path: Path, encrypted: Encrypted) -> None:
    up = Up(tmp_path, PARLEY_POSTGRES__URL=encrypted.postgres(authority=encrypted.stranger))
    said = await asyncio.to_thread(up.parley, "migrate", code=75)
    assert "check sslrootcert in the URL" in said
    assert PASSWORD not in said
