from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from backplane.settings import Settings
from backplane.settings.pools import PoolSettings
from backplane.telemetry import traces
from backplane.telemetry.readiness import Readiness
from cli.failures import EX_CONFIG, ConfigurationError
from cli.ray_pool import resources
from cli.ray_worker import RayWorker, on_node
from tests.collector import collector


def settings(**pool: object) -> Settings:
    described = PoolSettings.model_validate({"backend": "scripted", "models": ["script"], **pool})
    return Settings(health_port=9000, pools={"one": described})


@pytest.mark.parametrize(("gpus", "wanted"), [(None, 0), ((), 0), ((3,), 1), ((0, 1), 2)])
def test_ray_is_asked_for_as_many_gpus_as_the_pool_names(gpus: tuple[int, ...] | None, wanted: int) -> None:
    asked = resources(settings(gpus=gpus).pools["one"])
    assert asked["num_gpus"] == wanted
    assert asked["max_restarts"] == asked["max_task_retries"] == -1


def test_the_gpus_of_a_worker_are_those_that_ray_gave() -> None:
    assert on_node(settings(gpus=(0, 1)), "one", ["5", 7]).pools["one"].gpus == (5, 7)


def test_a_pool_that_names_no_gpus_is_not_pinned() -> None:
    assert on_node(settings(), "one", []).pools["one"].gpus is None


def test_gpus_without_numbers_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="CUDA_VISIBLE_DEVICES"):
        on_node(settings(gpus=(0,)), "one", ["GPU-77c0"])


def test_workers_of_one_node_do_not_want_the_same_port() -> None:
    assert on_node(settings(), "one", []).health_port == 0


def test_a_node_without_the_pool_is_told_which_ones_it_has() -> None:
    with pytest.raises(ConfigurationError, match="there is no pool 'two' on this node; it has one"):
        on_node(settings(), "two", [])


@pytest.fixture
def on_ray(monkeypatch: pytest.MonkeyPatch) -> RayWorker:
    """A worker in the process that a Ray would have made for it."""
    ray = ModuleType("ray")
    monkeypatch.setattr(ray, "get_gpu_ids", list, raising=False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("cli.ray_worker.configuration.load", settings)
    monkeypatch.setattr("cli.ray_worker.settings_of_one_service", lambda made: made)
    monkeypatch.setattr("cli.ray_worker.logs.configure", lambda *_: None)
    monkeypatch.setattr("cli.ray_worker.gc.freeze", lambda: None)
    return RayWorker("one")


async def test_a_worker_on_ray_sends_its_spans(on_ray: RayWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = "0af7651916cd43dd8448eb211c80319c"

    async def serve(*_: object, **__: object) -> None:
        with traces.span("generation", parent=f"00-{traced}-b7ad6b7169203331-01"):
            pass

    monkeypatch.setattr("workers.main.serve", serve)
    with collector() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.url)
        assert await on_ray.run() == (0, "")
        assert [(one.service, one.span.name) for one in collected.of(traced)] == [("worker-one", "generation")]


async def test_a_worker_on_ray_that_has_failed_is_not_ready(on_ray: RayWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(*_: object, begun: Callable[[Readiness], None], **__: object) -> None:
        begun(Readiness())
        assert await on_ray.reasons() == {}
        raise ConfigurationError("the engine is lost")

    monkeypatch.setattr("workers.main.serve", serve)
    assert "start" in await on_ray.reasons()
    assert await on_ray.run() == (EX_CONFIG, "the engine is lost")
    assert "start" in await on_ray.reasons()
