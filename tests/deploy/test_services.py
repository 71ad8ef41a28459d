"""What the manifests start, and with what environment, against the code."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import typer.testing
from pydantic import BaseModel

from backplane.settings import Settings
from backplane.telemetry.readiness import Readiness
from backplane.web.application import health_router
from cli.main import app
from cli.programs import service_programs
from tests.deploy.manifests import Manifests, Object

SECRETS = {
    "postgres": "postgresql://somebody:password@db.example.com/parley",
    "redis-url": "redis://redis.example.com:6379/0",
    "key": "0" * 64,
}


def environment(container: Object) -> dict[str, str]:
    """What the process finds, with something of the right form for each secret."""
    found = {}
    for each in container["env"]:
        key = each.get("valueFrom", {}).get("secretKeyRef", {}).get("key", "")
        stand_in = SECRETS["postgres"] if key.startswith("postgres-") else SECRETS.get(key, SECRETS["key"])
        found[each["name"]] = each.get("value", stand_in)
    return found


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(("PARLEY_", "LLM_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def settings_of(container: Object, clean: pytest.MonkeyPatch) -> Settings:
    with clean.context() as patch:
        for name, value in environment(container).items():
            patch.setenv(name, value)
        return Settings()


def test_every_environment_variable_is_a_setting(manifests: Manifests) -> None:
    def there(model: Any, path: list[str]) -> bool:
        if not path:
            return True
        if isinstance(model, type) and issubclass(model, BaseModel):
            return path[0] in model.model_fields and there(model.model_fields[path[0]].annotation, path[1:])
        if get_origin(model) is dict:
            return there(get_args(model)[-1], path[1:])
        return any(there(each, path) for each in get_args(model))

    names = {
        name.removeprefix("PARLEY_").lower()
        for container in manifests.parley_containers().values()
        for name in environment(container)
        if name.startswith("PARLEY_")
    }
    assert len(names) > 10
    assert [name for name in sorted(names) if not there(Settings, name.split("__"))] == []


def test_every_environment_makes_settings(manifests: Manifests, clean: pytest.MonkeyPatch) -> None:
    for component, container in manifests.parley_containers().items():
        settings = settings_of(container, clean)
        assert set(settings.pools) == set(manifests.values["pools"]), component
        assert settings.worker.grace_s == manifests.values["settings"]["worker"]["grace_s"]
        assert settings.bus.pulsar.url is not None
        given = manifests.values["settings"]["bus"]["pulsar"]
        assert settings.bus.pulsar.url == given.get("url", "pulsar://parley-pulsar:6650")
        assert settings.data_dir.as_posix() in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_every_command_is_one_of_the_command_line(manifests: Manifests) -> None:
    runner = typer.testing.CliRunner()
    for component, container in manifests.parley_containers().items():
        if component == "operator":
            continue
        assert container["command"] == ["parley"]
        assert runner.invoke(app, [*container["args"], "--help"]).exit_code == 0, container["args"]
    assert runner.invoke(app, ["no-such-service", "--help"]).exit_code != 0


def test_each_pool_has_workers_that_run_it(manifests: Manifests) -> None:
    commands = {component: container["args"] for component, container in manifests.services().items()}
    assert commands == {
        **{name: [name] for name in ("command-api", "query-api", "gateway", "projections", "ingest")},
        **{f"worker-{pool}": ["worker", "--pool", pool] for pool in manifests.values["pools"]},
    }


def test_probes_ask_what_the_service_answers(manifests: Manifests, clean: pytest.MonkeyPatch) -> None:
    router = health_router(Readiness())
    answered = {getattr(route, "path", "") for route in router.routes}
    for component, container in manifests.services().items():
        settings = settings_of(container, clean)
        (port,) = container["ports"]
        serves = component in ("command-api", "query-api", "gateway")
        assert (settings.port if serves else settings.health_port) == port["containerPort"]
        assert settings.host == "0.0.0.0"
        probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {probe["port"] for probe in probes.values()} == {port["name"]}
        # A server that is away must not get a process killed that waits for it.
        assert probes["startup"]["path"] == probes["liveness"]["path"] == "/healthz"
        assert probes["readiness"]["path"] == "/readyz"
        assert {probe["path"] for probe in probes.values()} <= answered
        # Its checks have 2 s each, side by side.
        assert container["readinessProbe"]["timeoutSeconds"] > 2
        assert container["livenessProbe"]["failureThreshold"] * container["livenessProbe"]["periodSeconds"] >= 60


def test_who_is_killed_had_time_to_drain(manifests: Manifests, clean: pytest.MonkeyPatch) -> None:
    for component, template in manifests.workloads():
        if component not in manifests.services():
            continue
        container = template["spec"]["containers"][0]
        settings = settings_of(container, clean)
        programs = {program.name: program.grace_s for program in service_programs(settings)}
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        # The APIs are parts of one program there.
        grace = programs.get(component, programs["gateway"])
        assert template["spec"]["terminationGracePeriodSeconds"] == math.ceil(grace) + pause
        assert (pause > 0) == (component in ("command-api", "query-api", "gateway"))


def secrets_of(container: Object) -> set[str]:
    return {name for name in environment(container) if _is_secret(container, name)}


def _is_secret(container: Object, name: str) -> bool:
    return any(each["name"] == name and "secretKeyRef" in each.get("valueFrom", {}) for each in container["env"])


def test_no_service_has_a_secret_more_than_under_up(manifests: Manifests, clean: pytest.MonkeyPatch) -> None:
    urls = "PARLEY_POSTGRES__ROLE_URLS__"
    of_up = {
        "projections": {f"{urls}PROJECTIONS", "PARLEY_SECURITY__SIGNING_KEY"},
        "ingest": {f"{urls}WORKER", "PARLEY_SECURITY__MASTER_KEY"},
        "worker": {f"{urls}WORKER", "PARLEY_SECURITY__MASTER_KEY"},
        "query-api": {f"{urls}QUERY_API", "PARLEY_SECURITY__MASTER_KEY", "PARLEY_SECURITY__KEY_PEPPER"},
    }
    of_up["command-api"] = {*of_up["query-api"], f"{urls}COMMAND_API", f"{urls}RELAY"} - {f"{urls}QUERY_API"}
    of_up["gateway"] = of_up["query-api"] | of_up["command-api"]
    for component, container in manifests.services().items():
        known = "worker" if component.startswith("worker-") else component
        token = {"PARLEY_BUS__PULSAR__TOKEN"} if manifests.values["secrets"]["pulsarToken"] else set()
        more = {each["name"] for each in _more_environment(manifests, component)}
        assert secrets_of(container) - more == of_up[known] | token | {"PARLEY_REDIS__URL"}


def _more_environment(manifests: Manifests, component: str) -> list[Object]:
    if component.startswith("worker-"):
        env = manifests.values["pools"][component.removeprefix("worker-")].get("env", [])
    else:
        first, *rest = component.split("-")
        env = manifests.values[first + "".join(part.title() for part in rest)]["env"]
    assert isinstance(env, list)
    return env


def test_provider_keys_reach_only_their_pool(manifests: Manifests, clean: pytest.MonkeyPatch) -> None:
    def named(pool: Object) -> Iterator[str]:
        return (key.removeprefix("env:") for key in pool["settings"].get("keys", []) if key.startswith("env:"))

    pools = manifests.values["pools"]
    every = {name for pool in pools.values() for name in named(pool)}
    for component, container in manifests.parley_containers().items():
        own = set(named(pools.get(component.removeprefix("worker-"), {"settings": {}})))
        assert environment(container).keys() & every == own
        assert all(_is_secret(container, name) for name in own)


def test_no_value_holds_a_secret(manifests: Manifests) -> None:
    secret = re.compile(r"password|secret|token|_KEY$|PEPPER|POSTGRES|REDIS", re.IGNORECASE)
    for container in manifests.parley_containers().values():
        for each in container["env"]:
            assert "value" not in each or not secret.search(each["name"]), each["name"]
            assert not re.search(r"://[^/@]*:[^/@]*@", each.get("value", "")), each["name"]


def test_who_sets_up_has_what_it_needs(manifests: Manifests, clean: pytest.MonkeyPatch) -> None:
    containers = manifests.parley_containers()
    migrate, setup = settings_of(containers["migrate"], clean), settings_of(containers["pulsar-setup"], clean)
    assert migrate.postgres.url is not None
    # A role without a URL would be given a password that nobody knows, and without Redis's one would be started.
    assert all(getattr(migrate.postgres.role_urls, role) for role in type(migrate.postgres.role_urls).model_fields)
    assert migrate.redis.url is not None
    assert not secrets_of(containers["pulsar-setup"]) - {"PARLEY_BUS__PULSAR__TOKEN"}
    assert setup.bus.pulsar.url == migrate.bus.pulsar.url
    operator = settings_of(containers["operator"], clean)
    assert operator.postgres.url is not None
    assert operator.security.signing_key is not None
    assert manifests.named("Deployment", "parley-operator")["spec"]["replicas"] == 0
