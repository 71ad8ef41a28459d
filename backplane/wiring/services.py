"""Which adapters a service gets. A service sees ports only, and only those that are its business."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeVar
from uuid import UUID

from pydantic import SecretStr

from backplane.adapters.postgres.database import PostgresDatabase
from backplane.adapters.postgres_bus.bus import PostgresBus
from backplane.adapters.redis.budget import RedisBudget
from backplane.adapters.redis.connection import ping
from backplane.adapters.redis.eraser import RedisStreamEraser
from backplane.adapters.redis.hub import Hub
from backplane.adapters.redis.key_room import RedisKeyRoom
from backplane.adapters.redis.page_cache import RedisPageCache
from backplane.adapters.redis.reader import RedisStreamReader
from backplane.adapters.redis.signals import RedisSignals
from backplane.adapters.redis.writer import RedisStreamWriter
from backplane.ports.budget import Budget, Settlement
from backplane.ports.bus import Bus
from backplane.ports.database import Database, DatabaseUnavailable
from backplane.ports.key_room import KeyRoom, RoomView
from backplane.ports.key_wrapping import CannotUnwrap, WrappingRefused, WrappingUnavailable
from backplane.ports.page_cache import PageCache
from backplane.ports.token_stream import Signals, StreamEraser, StreamReader, StreamWriter
from backplane.security.authenticator import Authenticator
from backplane.security.checkpoint import SigningKey
from backplane.security.content import DataKeys
from backplane.security.sealing import MasterKey
from backplane.settings import MASTER_KEY, Settings
from backplane.telemetry.readiness import Readiness
from backplane.wiring.data_key_wrapping import DataKeyWrapping

logger = logging.getLogger(__name__)

_NOBODY = UUID(int=0)


class _Closes(Protocol):
    async def close(self) -> None: ...


C = TypeVar("C", bound=_Closes)


class NotConfigured(ValueError):
    """A setting that this service cannot do without is missing. Names it."""


@dataclass(frozen=True, slots=True)
class CommandSide:
    bus: Bus
    database: Database
    budget: Budget
    relay_database: Database
    dead_letters: Bus
    """For consuming what waits for operators, and nothing else."""
    signals: Signals
    streams: StreamEraser
    master_key: MasterKey
    data_keys: DataKeys
    key_pepper: str = field(repr=False)
    authenticator: Authenticator
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class QuerySide:
    bus: Bus
    database: Database
    streams: StreamReader
    room: RoomView
    signals: Signals
    data_keys: DataKeys
    authenticator: Authenticator
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class WorkerSide:
    bus: Bus
    database: Database
    streams: StreamWriter
    signals: Signals
    key_room: KeyRoom
    data_keys: DataKeys
    pages: PageCache


@dataclass(frozen=True, slots=True)
class ProjectionSide:
    bus: Bus
    database: Database
    signing_key: SigningKey
    settlement: Settlement
    drop_old_messages: Callable[[], Awaitable[int]] | None
    """Retention, to be called about once an hour; None where it is the bus's own affair. Raises BusUnavailable."""


@asynccontextmanager
async def command_side(settings: Settings) -> AsyncIterator[CommandSide]:
    """Raises NotConfigured, DatabaseUnavailable, BusUnavailable."""
    async with _Adapters(settings) as adapters:
        database = adapters.database("command_api")
        bus = adapters.bus("command_api")
        data_keys = await adapters.data_keys()
        await _try_at_start(database, data_keys, makes_keys=True)
        budget = adapters.budget()
        counting = {"limits": budget.counts} if settings.limits.uncounted == "refuse" else {}
        yield CommandSide(
            bus,
            database,
            budget,
            # One connection for the outbox, which holds it while it publishes, one each to take webhooks,
            # batches and chat tools' questions.
            adapters.database("relay", pool_size=4),
            adapters.bus("relay"),
            adapters.signals(),
            adapters.stream_eraser(),
            master_key(settings),
            data_keys,
            adapters.key_pepper,
            adapters.authenticator(database),
            Readiness(postgres=database.ping, bus=bus.ping, redis=adapters.redis_ping, **counting),
        )


@asynccontextmanager
async def query_side(settings: Settings) -> AsyncIterator[QuerySide]:
    """Raises NotConfigured, DatabaseUnavailable, BusUnavailable."""
    async with _Adapters(settings) as adapters:
        database = adapters.database("query_api")
        bus = adapters.bus("query_api")
        data_keys = await adapters.data_keys()
        await _try_at_start(database, data_keys)
        yield QuerySide(
            bus,
            database,
            adapters.stream_reader(),
            adapters.key_room(),
            adapters.signals(),
            data_keys,
            adapters.authenticator(database),
            Readiness(postgres=database.ping, bus=bus.ping, redis=adapters.redis_ping),
        )


@asynccontextmanager
async def worker_side(settings: Settings) -> AsyncIterator[WorkerSide]:
    """Raises NotConfigured, DatabaseUnavailable, BusUnavailable."""
    async with _Adapters(settings) as adapters:
        database = adapters.database("worker")
        data_keys = await adapters.data_keys()
        await _try_at_start(database, data_keys)
        yield WorkerSide(
            adapters.bus("worker"),
            database,
            adapters.stream_writer(),
            adapters.signals(),
            adapters.key_room(),
            data_keys,
            adapters.page_cache(),
        )


@asynccontextmanager
async def projection_side(settings: Settings) -> AsyncIterator[ProjectionSide]:
    """Raises NotConfigured, DatabaseUnavailable, BusUnavailable."""
    async with _Adapters(settings) as adapters:
        bus = adapters.bus("projections")
        drop_old_messages = bus.maintain if isinstance(bus, PostgresBus) else None
        yield ProjectionSide(
            bus, adapters.database("projections"), signing_key(settings), adapters.budget(), drop_old_messages
        )


def master_key(settings: Settings) -> MasterKey:
    """What provider keys and webhooks' secrets are sealed under, and data keys where no Vault wraps them. Raises
    NotConfigured."""
    file = settings.security.master_key_file
    if file is None:
        return MasterKey(_revealed(settings.security.master_key, "security.master_key"))
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotConfigured(f"security.master_key_file: {file} cannot be read: {type(error).__name__}") from None
    if not MASTER_KEY.fullmatch(text):
        raise NotConfigured(
            f"security.master_key_file: {file} does not hold 64 hexadecimal digits, as `openssl rand -hex 32` prints"
        )
    return MasterKey(text)


@asynccontextmanager
async def open_data_keys(settings: Settings) -> AsyncIterator[DataKeys]:
    """Raises NotConfigured."""
    try:
        wrapping = DataKeyWrapping.of(settings.security, master_key(settings))
    except WrappingRefused as error:
        raise NotConfigured(str(error)) from None
    try:
        yield DataKeys(wrapping)
    finally:
        await wrapping.aclose()


async def try_master_key(database: Database, data_keys: DataKeys, *, makes_keys: bool = False) -> bool:
    """Open the newest data key, and, for who makes keys, make one that is kept nowhere. False where there is none yet.

    Raises NotConfigured where it does not open, or who wraps keys refuses us; DatabaseUnavailable, WrappingUnavailable.
    """
    try:
        if makes_keys:
            await data_keys.make(_NOBODY, _NOBODY)
        return await _open_newest(database, data_keys)
    except WrappingRefused as error:
        raise NotConfigured(str(error)) from None


async def _open_newest(database: Database, data_keys: DataKeys) -> bool:
    newest = await database.at_once("SELECT * FROM control.newest_data_key()")
    if not newest:
        return False
    try:
        await data_keys.unwrap(newest[0]["wrapped"], newest[0]["tenant_id"], newest[0]["conversation_id"])
    except CannotUnwrap as error:
        raise NotConfigured(f"what was written cannot be read: the newest data key does not open: {error}") from None
    return True


async def _try_at_start(database: Database, data_keys: DataKeys, *, makes_keys: bool = False) -> None:
    try:
        await try_master_key(database, data_keys, makes_keys=makes_keys)
    except (DatabaseUnavailable, WrappingUnavailable) as error:
        # Services may start before their servers do; what they cannot open is told at the first prompt then.
        logger.warning("master key not tried", extra={"action": "master_key_not_tried", "cause": str(error)})


def signing_key(settings: Settings) -> SigningKey:
    """What checkpoints of the record are signed with. Raises NotConfigured."""
    return SigningKey(_revealed(settings.security.signing_key, "security.signing_key"))


def make_bus(postgres_url: Callable[[], str], settings: Settings) -> Bus:
    """The bus: Pulsar where the settings name one, else the one in Postgres, as whoever logs in there with that URL.

    The caller closes it.
    """
    retention = timedelta(hours=settings.bus.retention_hours)
    pulsar = settings.bus.pulsar
    if pulsar.url is None:
        return PostgresBus(postgres_url(), lease_s=settings.bus.lease_s, retention=retention)
    # Its client is a large library, which a laptop never loads.
    from backplane.adapters.pulsar_bus import PulsarAddress, PulsarBus

    token = None if pulsar.token is None else pulsar.token.get_secret_value()
    address = PulsarAddress(pulsar.url, pulsar.admin_url, pulsar.tenant, pulsar.namespace, token, pulsar.ca_file)
    return PulsarBus(address, retention=retention)


class _Adapters:
    """Adapters as they are asked for; closed together, the last one first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._hub: Hub | None = None

    async def __aenter__(self) -> _Adapters:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def _closing(self, made: C) -> C:
        self._stack.push_async_callback(made.close)
        return made

    def database(self, role: str, pool_size: int | None = None) -> PostgresDatabase:
        return self._closing(
            PostgresDatabase(self._role_url(role), pool_size=pool_size or self._settings.postgres.pool_size)
        )

    def bus(self, role: str) -> Bus:
        return self._closing(make_bus(lambda: self._role_url(role), self._settings))

    def signals(self) -> RedisSignals:
        return self._closing(RedisSignals(self._redis_url, self._shared_hub()))

    def stream_reader(self) -> RedisStreamReader:
        return self._closing(RedisStreamReader(self._redis_url, self._shared_hub()))

    def stream_writer(self) -> RedisStreamWriter:
        return self._closing(RedisStreamWriter(self._redis_url))

    def stream_eraser(self) -> RedisStreamEraser:
        return self._closing(RedisStreamEraser(self._redis_url))

    def key_room(self) -> RedisKeyRoom:
        return self._closing(RedisKeyRoom(self._redis_url))

    def page_cache(self) -> RedisPageCache:
        return self._closing(RedisPageCache(self._redis_url))

    async def data_keys(self) -> DataKeys:
        return await self._stack.enter_async_context(open_data_keys(self._settings))

    def budget(self) -> RedisBudget:
        return self._closing(RedisBudget(self._redis_url))

    def authenticator(self, database: Database) -> Authenticator:
        security = self._settings.security
        return Authenticator(database, self.key_pepper, security.key_cache_s, security.session_idle_minutes * 60)

    async def redis_ping(self) -> None:
        """Raises StreamUnavailable."""
        await ping(self._redis_url)

    def _shared_hub(self) -> Hub:
        if self._hub is None:
            self._hub = Hub(self._redis_url)
            self._stack.push_async_callback(self._hub.close)
        return self._hub

    @property
    def key_pepper(self) -> str:
        return _revealed(self._settings.security.key_pepper, "security.key_pepper")

    @property
    def _redis_url(self) -> str:
        return _revealed(self._settings.redis.url, "redis.url")

    def _role_url(self, role: str) -> str:
        return _revealed(getattr(self._settings.postgres.role_urls, role), f"postgres.role_urls.{role}")


def _revealed(secret: SecretStr | None, name: str) -> str:
    if secret is None:
        variable = "PARLEY_" + name.upper().replace(".", "__")
        raise NotConfigured(f"{name} is not set; set {variable}, or start everything with `parley up`")
    return secret.get_secret_value()
