"""The workers of a pool as actors of a Ray cluster that is there: started, watched and drained from this process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable
from typing import Any

from backplane.settings import Settings
from backplane.settings.pools import PoolSettings
from backplane.telemetry import status
from backplane.telemetry.readiness import Readiness
from backplane.web.probes import serve_probes
from cli.failures import EX_CONFIG, CommandError, ConfigurationError, TryAgain
from cli.ray_worker import RayWorker
from cli.restart import Backoff

_ANSWER_S = 5.0
_MARGIN_S = 10.0
"""After the grace period, for what a worker closes."""

logger = logging.getLogger(__name__)


async def serve(settings: Settings, stop: asyncio.Event, *, pool: str, address: str, count: int) -> None:
    """Run ``count`` workers of ``pool`` on the cluster at ``address`` until ``stop`` is set, then drain them.

    Raises ConfigurationError where Ray is not installed or a worker's settings are wrong, TryAgain where there is no
    cluster, CommandError where Ray gives an actor up.
    """
    await _is_there(address)
    ray = _joined(address)
    try:
        await RayPool(ray, settings, pool, count).run(stop)
    finally:
        ray.shutdown()


async def _is_there(address: str) -> None:
    """Ray itself tries for minutes, and then names no address. Raises TryAgain."""
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdecimal():
        return
    try:
        async with asyncio.timeout(_ANSWER_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError as error:
        raise _nobody_at(address, error) from None
    writer.close()


def _nobody_at(address: str, error: Exception) -> TryAgain:
    cause = " ".join(str(error).split()) or type(error).__name__
    return TryAgain(f"there is no Ray cluster at {address}: {cause}; start one with `ray start --head`")


def _joined(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigurationError("--ray needs Ray: install Parley with the extra `ray`") from None
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise _nobody_at(address, error) from None
    except RuntimeError as error:
        raise CommandError(f"Ray at {address} cannot be joined: {error}") from None
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's own ends the process at once
    return ray


class RayPool:
    """``count`` actors, each of which is one worker."""

    def __init__(self, ray: Any, settings: Settings, pool: str, count: int) -> None:
        self._ray = ray
        self._settings = settings
        self._pool = pool
        described = settings.pools[pool]
        made = ray.remote(**resources(described))(RayWorker)
        self._actors = [made.remote(pool) for _ in range(count)]
        self._slots = described.slots
        self._have_begun = False

    async def run(self, stop: asyncio.Event) -> None:
        """Keep them running until ``stop`` is set; then drain them, within the grace period. Raises CommandError."""
        readiness = Readiness(**{f"worker {number}": self._asked(actor) for number, actor in self._numbered()})
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serve_probes(readiness, self._settings, stop))
                keepers = [tasks.create_task(self._keep(number, actor, stop)) for number, actor in self._numbered()]
                telling = tasks.create_task(self._tell())
                await stop.wait()
                telling.cancel()
                for actor in self._actors:
                    actor.stop.remote()
                _, left = await asyncio.wait(keepers, timeout=self._settings.worker.grace_s + _MARGIN_S)
                for each in left:
                    each.cancel()
        finally:
            for actor in self._actors:
                self._ray.kill(actor)

    def _numbered(self) -> list[tuple[int, Any]]:
        return list(enumerate(self._actors, start=1))

    async def _tell(self) -> None:
        await asyncio.gather(*(_awaited(actor.begun.remote()) for actor in self._actors))
        self._have_begun = True
        status.ready(f"pool {self._pool}, {len(self._actors)} workers on Ray, {self._slots} slots each")

    def _asked(self, actor: Any) -> Any:
        async def ask() -> None:
            reasons: dict[str, str] = await actor.reasons.remote()
            if reasons:
                raise ConnectionError("; ".join(f"{what}: {why}" for what, why in reasons.items()))

        return ask

    async def _keep(self, number: int, actor: Any, stop: asyncio.Event) -> None:
        """Ray restarts an actor whose process dies; one whose worker has failed is restarted from here."""
        backoff = Backoff()
        while not stop.is_set():
            began = time.monotonic()
            try:
                code, why = await actor.run.remote()
            except self._ray.exceptions.RayError as error:
                raise CommandError(f"Ray gave up worker {number}: {str(error).splitlines()[0]}") from None
            if stop.is_set():
                return
            if code == EX_CONFIG and not self._have_begun:
                raise ConfigurationError(f"worker {number} on Ray: {why}")
            delay = backoff.next(time.monotonic() - began)
            about = {"action": "ray_worker_failed", "worker": number, "cause": why, "again_in_s": delay}
            logger.error("a worker on Ray failed", extra=about)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            self._ray.kill(actor, no_restart=False)


def resources(described: PoolSettings) -> dict[str, float]:
    """What Ray keeps for each worker of a pool, and how often it restarts one.

    Of ``gpus`` the number counts: which of its GPUs they are, is for the node to say.
    """
    return {"num_cpus": 1, "num_gpus": len(described.gpus or ()), "max_restarts": -1, "max_task_retries": -1}


async def _awaited(answer: Awaitable[None]) -> None:
    await answer
