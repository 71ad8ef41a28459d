"""What an operator may decide. From the environment (``PARLEY_…``, ``__`` between levels), then ``.env``, then the
files of the folder that ``PARLEY_SECRETS_DIR`` names (each is called as its variable), then ``settings.toml`` (or the
file that ``PARLEY_SETTINGS`` names), then earlier systems' names, then these defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from backplane.settings.bus import BusSettings as BusSettings
from backplane.settings.bus import PulsarSettings as PulsarSettings
from backplane.settings.doors import DoorSettings
from backplane.settings.earlier_names import EarlierNames
from backplane.settings.knowledge import KnowledgeSettings
from backplane.settings.llm import LlmSettings as LlmSettings
from backplane.settings.pools import PoolSettings as PoolSettings
from backplane.settings.sources import SourceSettings as SourceSettings

MASTER_KEY = re.compile("[0-9a-fA-F]{64}")
"""How a master key is written."""


def _safe(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        return url
    raise ValueError("use https:// (http:// is for this machine only)")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RoleUrls(_Section):
    """One URL for each database role; where a role has none, ``postgres.url`` with a password made by `parley up`."""

    command_api: SecretStr | None = Field(
        default=None, description="`postgresql://parley_command_api:…`: the command API"
    )
    query_api: SecretStr | None = Field(default=None, description="`postgresql://parley_query_api:…`: the query API")
    worker: SecretStr | None = Field(
        default=None, description="`postgresql://parley_worker:…`: the workers and the ingest service"
    )
    projections: SecretStr | None = Field(
        default=None, description="`postgresql://parley_projections:…`: the projections"
    )
    relay: SecretStr | None = Field(
        default=None, description="`postgresql://parley_relay:…`: the relay, which publishes the outbox"
    )


class PostgresSettings(_Section):
    url: SecretStr | None = Field(
        default=None,
        description="`postgresql://…` of the owner, for migrations and rebuilds; none: the embedded server",
    )
    role_urls: RoleUrls = RoleUrls()
    pool_size: int = Field(default=20, ge=1, le=200, description="connections a service holds at most")


class RedisSettings(_Section):
    url: SecretStr | None = Field(
        default=None, description="`redis://…`, `rediss://…` or `unix://…`; none: the embedded Valkey"
    )


class WorkerSettings(_Section):
    lease_s: float = Field(default=10.0, gt=0, description="seconds without a heartbeat until a generation is lost")
    max_attempts: int = Field(default=3, ge=1, description="after so many lost attempts a generation has failed")
    grace_s: float = Field(default=30.0, ge=0, description="seconds that running generations get after SIGTERM")
    emit_every_s: float = Field(default=0.25, gt=0, description="seconds between two TokensEmitted of a generation")
    keep_claims_hours: int = Field(
        default=72, ge=49, description="how long ended claims are kept; longer than an idempotency key can be repeated"
    )


class LimitSettings(_Section):
    body_bytes: int = Field(default=1024 * 1024, ge=1024, le=3 * 1024 * 1024, description="largest request body")
    messages: int = Field(default=1000, ge=1, description="most messages of one prompt")
    metadata_bytes: int = Field(default=16 * 1024, ge=0, description="largest metadata of one prompt, as JSON")
    batch_bytes: int = Field(default=100 * 1024 * 1024, ge=1024, description="largest file of a batch")
    batch_lines: int = Field(default=50_000, ge=1, description="most lines of a batch")
    publish_s: float = Field(
        default=5.0, gt=0, le=30, description="seconds that an admitted prompt has to get on the bus; then it is a 503"
    )
    uncounted: Literal["refuse", "admit"] = Field(
        default="refuse", description="what becomes of prompts while limits cannot be counted, since Redis is down"
    )


class SecuritySettings(_Section):
    key_pepper: SecretStr | None = Field(
        default=None, description="key of the hash that API keys are stored as; none: made once in the data folder"
    )
    key_cache_s: float = Field(
        default=5.0, ge=0, description="longest time that an authenticated key or session is remembered"
    )
    session_idle_minutes: int = Field(default=480, ge=1, description="a session that is not used for so long ends")
    session_hours: int = Field(default=168, ge=1, description="a session ends so long after it began, used or not")
    invitation_hours: int = Field(default=72, ge=1, description="how long an invitation can be accepted")
    master_key: SecretStr | None = Field(
        default=None,
        description="what data keys, provider keys and webhooks' secrets are encrypted under, 64 hexadecimal digits;"
        " none: made once in the data folder",
    )
    master_key_file: Path | None = Field(
        default=None, description="file with the master key, which then goes before `master_key`"
    )
    vault_url: str | None = Field(
        default=None,
        description="`https://…` of a HashiCorp Vault or OpenBao that wraps data keys; none: the master key does",
    )
    vault_mount: str = Field(
        default="transit", pattern=r"^\w[\w.-]*(/\w[\w.-]*)*$", description="path of its transit secrets engine"
    )
    vault_key: str | None = Field(default=None, pattern=r"^\w[\w.-]*$", description="name of the key there")
    vault_token: SecretStr | None = Field(default=None, description="what it knows us by")
    vault_token_file: Path | None = Field(
        default=None, description="file with that token, read for each request; goes before `vault_token`"
    )
    vault_ca_file: Path | None = Field(default=None, description="PEM file of who signed its certificate")

    signing_key: SecretStr | None = Field(
        default=None,
        description="what checkpoints of the record are signed with, 64 hexadecimal digits; none: made once in the data"
        " folder",
    )

    @field_validator("master_key", "signing_key")
    @classmethod
    def _has_256_bits(cls, given: SecretStr | None) -> SecretStr | None:
        if given is not None and not MASTER_KEY.fullmatch(given.get_secret_value()):
            raise ValueError("use 64 hexadecimal digits, as `openssl rand -hex 32` prints")
        return given

    @field_validator("vault_url")
    @classmethod
    def _is_safe(cls, given: str | None) -> str | None:
        return None if given is None else _safe(given)

    @model_validator(mode="after")
    def _vault_is_whole(self) -> SecuritySettings:
        if self.vault_url is not None:
            if self.vault_key is None:
                raise ValueError("security.vault_url is set, and security.vault_key is not; name the key to wrap by")
            if self.vault_token is None and self.vault_token_file is None:
                raise ValueError(
                    "security.vault_url is set, and no token; set security.vault_token or security.vault_token_file"
                )
        return self


class WebhookSettings(_Section):
    allow_private: bool = Field(
        default=False, description="webhooks may have http:// URLs and private addresses; for development only"
    )


class RecordSettings(_Section):
    checkpoint_lines: int = Field(
        default=1000, ge=1, description="after so many new lines of a tenant's record its head is signed"
    )
    checkpoint_s: float = Field(default=60.0, gt=0, description="after so many seconds with new lines likewise")
    keep_days: int | None = Field(
        default=None,
        ge=1,
        description="how long lines of the record are kept; read models cannot be rebuilt from what is gone; none: for"
        " ever",
    )


class OidcSettings(_Section):
    """An OpenID Connect provider, which signs people in to one tenant. Its redirect URI is ours:
    ``https://<host>/v1/oidc/<name>/callback``."""

    issuer: str = Field(description="its issuer identifier, exactly as its metadata names it")
    client_id: str = Field(min_length=1, description="what it knows us by")
    client_secret: SecretStr = Field(description="that it gave us")
    tenant: UUID = Field(description="id of the tenant that it signs people in to")
    domains: tuple[str, ...] = Field(
        default=(), description="who has a verified e-mail address in these needs no invitation; none: everybody does"
    )
    role: Literal["admin", "member", "auditor"] = Field(default="member", description="of who comes without one")

    @field_validator("issuer")
    @classmethod
    def _is_safe(cls, given: str) -> str:
        return _safe(given)

    @field_validator("domains")
    @classmethod
    def _in_one_case(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(domain.lower() for domain in given)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="PARLEY_",
        env_nested_delimiter="__",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    data_dir: Path = Field(default=Path(".parley"), description="everything that `parley up` keeps")
    models_dir: Path = Field(default=Path("models"), description="GGUF files found by name")
    personas_dir: Path = Field(
        default=Path("personas"), description="persona files that `parley up` saves for its first tenant"
    )
    host: str = Field(default="127.0.0.1", description="address that services listen on")
    port: int = Field(default=8000, ge=0, le=65535, description="port the APIs listen on")
    cors_origins: tuple[str, ...] = Field(default=(), description="origins that browsers may call from")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="from which level on lines are logged; only DEBUG may show content"
    )
    postgres: PostgresSettings = PostgresSettings()
    redis: RedisSettings = RedisSettings()
    bus: BusSettings = BusSettings()
    pools: dict[str, PoolSettings] = Field(default={"local": PoolSettings(backend="xllamacpp")})
    worker: WorkerSettings = WorkerSettings()
    limits: LimitSettings = LimitSettings()
    security: SecuritySettings = SecuritySettings()
    webhooks: WebhookSettings = WebhookSettings()
    sources: SourceSettings = SourceSettings()
    record: RecordSettings = RecordSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    doors: DoorSettings = DoorSettings()
    oidc: dict[str, OidcSettings] = Field(default={}, description="providers that people may sign in with, by name")
    health_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="port where workers, projections and the ingest service answer probes and tell metrics, on `host`;"
        " 0: none. `parley up` gives it to the projections, and those after it to the workers and the ingest service",
    )
    read_your_writes_s: float = Field(
        default=2.0, gt=0, description="how long a read waits for projections to pass what was just published"
    )
    prices_file: Path | None = Field(
        default=None, description="TOML file of what models cost; none: list prices that come with Parley"
    )
    refusals_window_s: float = Field(default=60.0, gt=0, description="refusals are summed over this long")

    @field_validator("pools")
    @classmethod
    def _pool_names_are_topic_names(cls, pools: dict[str, PoolSettings]) -> dict[str, PoolSettings]:
        for name in pools:
            if not (name.replace("-", "").isalnum() and name.islower() and len(name) <= 40):
                raise ValueError(f"pool {name!r}: use at most 40 lower-case letters, digits and dashes")
        if not pools:
            raise ValueError("no pool: name at least one under [pools.<name>]")
        return pools

    @model_validator(mode="after")
    def _fallbacks_are_there(self) -> Settings:
        for name, pool in self.pools.items():
            for fallback in pool.fallbacks:
                if fallback not in self.pools and self.pool_of(fallback) is None:
                    raise ValueError(
                        f"fallbacks of [pools.{name}]: {fallback!r} is neither a pool nor in the `models` of one;"
                        f" the pools are {', '.join(self.pools)}"
                    )
        return self

    @model_validator(mode="after")
    def _local_key_stays_local(self) -> Settings:
        if self.doors.local_key is not None and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"doors.local_key lets everybody in: set host to 127.0.0.1 with it, not to {self.host}")
        return self

    @model_validator(mode="after")
    def _lines_outlive_redelivery(self) -> Settings:
        # What comes again is known by its line.
        needed = max(self.bus.retention_hours, self.worker.keep_claims_hours)
        if self.record.keep_days is not None and self.record.keep_days * 24 <= needed:
            raise ValueError(
                f"record.keep_days: {self.record.keep_days} days are no longer than bus.retention_hours and"
                f" worker.keep_claims_hours ({needed} hours), in which a line may come again; keep more days"
            )
        return self

    def pool_of(self, model: str) -> str | None:
        """The first pool that serves ``model``."""
        return next((name for name, pool in self.pools.items() if pool.serves(model)), None)

    def fallbacks_of(self, pool: str) -> Iterator[tuple[str, str]]:
        """Pool and model of each fallback of ``pool``, the best first."""
        for name in self.pools[pool].fallbacks:
            serving = self.pool_of(name)
            if serving is not None:
                yield serving, name
            elif (model := self.pools[name].default_model) is not None:
                yield name, model

    @property
    def default_model(self) -> str | None:
        return next((name for pool in self.pools.values() if (name := pool.default_model) is not None), None)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(env_settings, EnvSettingsSource)
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        file = Path(os.environ.get("PARLEY_SETTINGS", "settings.toml"))
        if "PARLEY_SETTINGS" in os.environ and not file.is_file():
            raise FileNotFoundError(f"PARLEY_SETTINGS names {file}, which is not there")
        secrets = NestedSecretsSettingsSource(
            file_secret_settings, secrets_dir=os.environ.get("PARLEY_SECRETS_DIR"), secrets_dir_missing="error"
        )
        earlier = EarlierNames(settings_cls, {**dotenv_settings.env_vars, **env_settings.env_vars})
        toml = TomlConfigSettingsSource(settings_cls, file)
        return init_settings, env_settings, dotenv_settings, secrets, toml, earlier
