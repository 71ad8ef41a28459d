"""What `parley up` runs: the embedded servers and the services, each with the environment it needs and no more."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from itertools import count, repeat

from backplane.settings import Settings
from backplane.telemetry.status import ASKED_FOR
from backplane.wiring.embedded import EmbeddedServer, EmbeddedServerError, completed, installed, service_environment
from cli.child import Launch, Program
from cli.failures import ConfigurationError
from cli.process import SUPERVISED
from workers.inference.gpus import visible

_SERVER_GRACE_S = 20.0
_SERVICE_GRACE_S = 10.0
_FOR_SERVERS = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")


def server_program(server: EmbeddedServer) -> Program:
    """An embedded server; prepared anew before every start."""

    async def launch() -> Launch:
        try:
            await asyncio.to_thread(server.prepare)
        except EmbeddedServerError as error:
            raise ConfigurationError(str(error)) from None
        command = server.command()
        environment = {name: os.environ[name] for name in _FOR_SERVERS if name in os.environ}
        return Launch(command.argv, environment, command.folder, command.uid, command.gid)

    return Program(server.name, launch, server.ping, server.stop_signal, _SERVER_GRACE_S)


def service_programs(settings: Settings) -> list[Program]:
    """Projections, one worker a pool, the ingest service, and the gateway, in the order in which they start.

    ``settings`` has each pool's model file. Each of those that have no other HTTP answers probes on a port of its own,
    if any: ``health_port`` and those after it. Raises EmbeddedServerError.
    """
    health_ports = count(settings.health_port) if settings.health_port else repeat(0)
    return [
        _service(
            "projections",
            ("projections",),
            settings,
            ("projections",),
            authenticates=False,
            has_master_key=False,
            health_port=next(health_ports),
        ),
        *(
            _service(
                f"worker-{pool}",
                ("worker", "--pool", pool),
                settings,
                ("worker",),
                authenticates=False,
                of_pool=pool,
                grace_s=settings.worker.grace_s + _SERVICE_GRACE_S,
                health_port=next(health_ports),
            )
            for pool in settings.pools
        ),
        _service(
            "ingest",
            ("ingest",),
            settings,
            ("worker",),
            authenticates=False,
            embeds=True,
            health_port=next(health_ports),
        ),
        _service("gateway", ("gateway",), settings, ("command_api", "query_api", "relay")),
    ]


def settings_of_one_service(settings: Settings) -> Settings:
    """The settings of the service in this process: whole already where a supervisor set them.

    Elsewhere what this data folder's installation made fills them up, so that a service can join a running Parley. In
    a folder without one nothing is made up: a service of a cluster with secrets of its own would be alone with them.
    Raises EmbeddedServerError.
    """
    alone = os.environ.get(SUPERVISED) == "1" or not installed(settings)
    return settings if alone else completed(settings)


def _service(
    name: str,
    arguments: tuple[str, ...],
    settings: Settings,
    roles: tuple[str, ...],
    *,
    authenticates: bool = True,
    has_master_key: bool = True,
    grace_s: float = _SERVICE_GRACE_S,
    of_pool: str | None = None,
    embeds: bool = False,
    health_port: int = 0,
) -> Program:
    pools = {pool: set_up.model_dump(mode="json", exclude_none=True) for pool, set_up in settings.pools.items()}
    for pool, set_up in pools.items():
        # Secrets reach only who needs them.
        keys = settings.pools[pool].keys if pool == of_pool else ()
        set_up["keys"] = [key.get_secret_value() for key in keys]
    environment = {
        **os.environ,
        **service_environment(settings, roles, authenticates=authenticates, has_master_key=has_master_key),
        "PARLEY_HEALTH_PORT": str(health_port),
        "PARLEY_POOLS": json.dumps(pools),
        "PARLEY_KNOWLEDGE": json.dumps(settings.knowledge.for_process(with_keys=embeds)),
        ASKED_FOR: "1",
        SUPERVISED: "1",
        **(visible(settings.pools[of_pool].gpus) if of_pool is not None else {}),
    }

    if not authenticates:
        environment["PARLEY_OIDC"] = json.dumps(
            {name: one.model_dump(mode="json") for name, one in settings.oidc.items()}
        )

    async def launch() -> Launch:
        # -P: a folder named like one of ours in the working directory must not be imported instead.
        return Launch((sys.executable, "-P", "-m", "cli.main", *arguments), environment)

    return Program(name, launch, grace_s=grace_s, keeps_lock=True)
