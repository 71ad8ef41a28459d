"""A worker as a Ray actor: what runs on the nodes of a cluster."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Sequence

from backplane.settings import Settings
from backplane.telemetry import logs
from backplane.telemetry.readiness import Readiness
from cli import configuration, process
from cli.failures import ConfigurationError
from cli.programs import settings_of_one_service
from workers.inference.gpus import visible


class RayWorker:
    """The worker that `parley worker` runs, in the event loop of an actor.

    Its settings are its node's own, as those of any service are: no secret goes through Ray, which shows what actors
    are given to everybody who sees its dashboard.
    """

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._stop = asyncio.Event()
        self._begun = asyncio.Event()
        self._readiness: Readiness | None = None

    async def run(self) -> tuple[int, str]:
        """Run prompts until ``stop``, then drain. Returns as a process ends: its exit code, and why it failed."""
        import ray

        import workers.main

        name = f"worker-{self._pool}"
        logs.configure(name, "INFO")
        try:
            settings = on_node(settings_of_one_service(configuration.load()), self._pool, ray.get_gpu_ids())
            logs.configure(name, settings.log_level)
            os.environ.update(visible(settings.pools[self._pool].gpus))  # read once, when the engine loads
            gc.collect()
            gc.freeze()
            with process.sending_traces(name):
                await workers.main.serve(settings, self._stop, pool=self._pool, begun=self._has_begun)
        except Exception as error:
            return process.failure(error)
        finally:
            self._readiness = None
        return 0, ""

    async def begun(self) -> None:
        """Return once it works."""
        await self._begun.wait()

    async def stop(self) -> None:
        """Let it drain: ``run`` then returns."""
        self._stop.set()

    async def reasons(self) -> dict[str, str]:
        """Why it is not ready; empty where it is."""
        return (
            {"start": "it has not begun, or has ended"} if self._readiness is None else await self._readiness.reasons()
        )

    def _has_begun(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._begun.set()


def on_node(settings: Settings, pool: str, gpus: Sequence[int | str]) -> Settings:
    """``settings`` of a worker of ``pool`` to which Ray gave these GPUs. Raises ConfigurationError.

    It has no port for probes: several of them run on a node, and who started them answers for all.
    """
    if pool not in settings.pools:
        raise ConfigurationError(f"there is no pool {pool!r} on this node; it has {', '.join(settings.pools)}")
    described = settings.pools[pool]
    if described.gpus is not None:
        if not all(str(each).isdigit() for each in gpus):
            raise ConfigurationError("Ray names its GPUs by ids; start its node with numbers in CUDA_VISIBLE_DEVICES")
        described = described.model_copy(update={"gpus": tuple(int(each) for each in gpus)})
    return settings.model_copy(update={"health_port": 0, "pools": {**settings.pools, pool: described}})
