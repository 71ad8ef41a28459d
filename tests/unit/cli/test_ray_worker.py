from __future__ import annotations

import pytest

from backplane.settings import Settings
from backplane.settings.pools import PoolSettings
from cli.failures import ConfigurationError
from cli.ray_pool import resources
from cli.ray_worker import on_node


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
