"""The compose file's services as processes of this machine, each with the environment and the secrets of its own."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from cli import secret_files
from cli.child import Tell
from cli.ready import port as probed_port
from tests.cluster import images
from tests.cluster.container import Container, shell
from tests.cluster.translation import HERE, Translation
from tests.deploy import compose
from tests.deploy.compose import ROOT, Node
from tests.ports import lasting_ports

VARIABLES = {
    # Answers that are known beforehand, and how fast they come: the pool of providers, told so in its settings.
    "PROVIDER_BACKEND": "scripted",
    "PROVIDER_MODELS": '["script"]',
    # One thread, since all of the cluster shares this machine.
    "WORKER_CPUS": "1",
}
"""The operator's `.env`."""

REPLICAS = {"command-api": 2, "query-api": 2, "projections": 2, "worker-provider": 2}
"""As `docker compose up --scale`; one of each of the others."""

_PROFILES = {"provider"}
_SERVER_PORTS = {"postgres": (5432,), "redis": (6379,), "pulsar": (6650, 8080, 3181), "caddy": (8000, 2020)}
_CONDITION_ONCE = "service_completed_successfully"
_STOP_GRACE = "10s"
"""What Docker gives a container that says nothing else."""


class Cluster:
    """All services of the compose file but those of other profiles."""

    def __init__(self, folder: Path, tell: Tell) -> None:
        self._folder = folder
        self._tell = tell
        self._services = compose.services(VARIABLES)
        names = [name for name, service in self._services.items() if _PROFILES.issuperset(service.get("profiles", ()))]
        self._ports = {
            name: [
                dict(zip(inside, lasting_ports(len(inside)), strict=True))
                for inside in [_ports(name, self._services[name])]
                for _ in range(REPLICAS.get(name, 1))
            ]
            for name in names
        }
        self._secrets = folder / "secrets"
        self._started: dict[str, asyncio.Task[None]] = {}
        self.containers: dict[str, list[Container]] = {}
        """By service, in the order in which they became healthy."""

    @property
    def url(self) -> str:
        """Of the proxy, in front of everything."""
        return f"http://{HERE}:{self._ports['caddy'][0][8000]}"

    async def start(self) -> None:
        """Return once every service is healthy. Raises ChildFailed, and RuntimeError of what is missing."""
        secret_files.write(
            self._secrets,
            f"{self._address('postgres', 5432)[0]}/{self._services['postgres']['environment']['POSTGRES_DB']}",
            self._address("redis", 6379)[0],
        )
        # The operator's own; a scripted provider takes any.
        (self._secrets / "provider_key").write_text("a key of nobody")
        await asyncio.gather(*(self._start(name) for name in self._ports))

    async def key(self) -> str:
        """A key of a tenant's administrator, made anew."""
        await self.operator("tenant", "create", "cluster")
        return (await self.operator("key", "issue", "--tenant", "cluster", "--role", "admin")).strip()

    async def operator(self, *arguments: str) -> str:
        """`docker compose run --rm operator …`: what it prints. Raises RuntimeError."""
        return await self._container("operator", 0).run(arguments)

    async def stop(self) -> None:
        """Those last that others need."""
        for starting in self._started.values():
            starting.cancel()
        await asyncio.gather(*self._started.values(), return_exceptions=True)
        for group in reversed(self.containers.values()):
            await asyncio.gather(*(container.stop() for container in group))

    def _start(self, name: str) -> asyncio.Task[None]:
        if name not in self._started:
            self._started[name] = asyncio.create_task(self._start_after_others(name))
        return self._started[name]

    async def _start_after_others(self, name: str) -> None:
        needed: Mapping[str, Node] = self._services[name].get("depends_on", {})
        await asyncio.gather(*(self._start(other) for other in needed))
        replicas = range(REPLICAS.get(name, 1))
        made = [await asyncio.to_thread(self._container, name, replica) for replica in replicas]
        if self._ends(name):
            self._tell.line(f"{name} runs")
            await made[0].run(self._services[name]["command"])
            return
        await asyncio.gather(*(container.start() for container in made))
        self.containers[name] = made
        self._tell.line(f"{name} is healthy")

    def _ends(self, name: str) -> bool:
        return any(
            service.get("depends_on", {}).get(name, {}).get("condition") == _CONDITION_ONCE
            for service in self._services.values()
        )

    def _container(self, name: str, replica: int) -> Container:
        service = self._services[name]
        folder = self._folder / f"{name}-{replica + 1}"
        folder.mkdir(mode=0o700, exist_ok=True)
        ports = self._ports.get(name, [{}])[replica]
        translate = Translation(
            {
                f"{other}:{inside}": self._address(other, inside)
                for other, replicas in self._ports.items()
                for inside in replicas[0]
            },
            ports,
            self._mounted(service, folder),
        )
        environment = {
            "PATH": images.path(),
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            **{variable: translate.variable(str(value)) for variable, value in service.get("environment", {}).items()},
        }
        command = [translate(part) for part in service.get("command", ())]
        match name:
            case "postgres":
                image = images.postgres(command, environment, folder, ports[5432])
            case "redis":
                image = images.redis(command, environment, folder, ports[6379])
            case "pulsar":
                image = images.pulsar(environment, folder, ports[6650], ports[8080], ports[3181])
            case "caddy":
                environment |= {"CADDY_HTTP_PORT": str(ports[8000]), "CADDY_HEALTH_PORT": str(ports[2020])}
                image = images.caddy(environment, folder, ROOT / "deploy/caddy")
            case _:
                image = images.parley(command, environment, folder)
        check = shell([translate(part) for part in service["healthcheck"].get("test", ("CMD", "true"))])
        grace_s = float(service.get("stop_grace_period", _STOP_GRACE).removesuffix("s"))
        return Container(f"{name}-{replica + 1}", image, check, grace_s, folder / "log", self._tell)

    def _mounted(self, service: Node, folder: Path) -> dict[str, Path]:
        """What the container sees → where it lies. A secret is there for those only that the file gives it to."""
        secrets = folder / "run-secrets"
        if not secrets.exists():
            secrets.mkdir(mode=0o700)
            for target, source in compose.secret_names(service).items():
                shutil.copy(self._secrets / source, secrets / target)
        found = {"/run/secrets": secrets}
        for place in service.get("tmpfs", ()):
            inside = place.partition(":")[0]
            if inside != "/tmp":
                found[inside] = _made(folder / "tmpfs" / inside.strip("/"))
        for volume in service.get("volumes", ()):
            source, inside = volume.split(":")[:2]
            found[inside] = ROOT / source if source.startswith("./") else _made(self._folder / "volumes" / source)
        return found

    def _address(self, name: str, inside: int) -> list[str]:
        return [f"{HERE}:{ports[inside]}" for ports in self._ports[name]]


def _ports(name: str, service: Node) -> tuple[int, ...]:
    """That a container listens on, inside."""
    if not compose.is_ours(service):
        return _SERVER_PORTS[name]
    return (probed_port({variable: str(value) for variable, value in service["environment"].items()}),)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
