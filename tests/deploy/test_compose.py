"""The compose file against its schema, the settings, the command line and the files that it mounts."""

from __future__ import annotations

import json
import re
import shlex
import socket
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from jsonschema import Draft7Validator
from typer.core import TyperGroup

from backplane.adapters.embedded.postgres import _OPTIONS as EMBEDDED_POSTGRES
from backplane.adapters.embedded.pulsar import VERSION as PULSAR
from backplane.settings import Settings
from cli import ready, secret_files
from cli.main import app
from tests.deploy import compose
from tests.deploy.compose import ROOT, Node
from tests.unit.cli.test_examples import paths

FULL = {
    "PROVIDER_MODELS": '["gpt-4o-mini"]',
    "PROVIDER_BASE_URL": "http://provider.example.com/v1",
    "TRITON_MODELS": '["chat"]',
}
"""Variables with which every pool is there."""

SERVICES = compose.services(FULL)
OURS = {name: service for name, service in SERVICES.items() if compose.is_ours(service)}
ONCE = {"migrate", "pulsar-setup", "operator", "secrets"}

PAGE = (ROOT / "docs/how-to/compose.md").read_text()

STANDARD = {"OTEL_EXPORTER_OTLP_ENDPOINT", "FORWARDED_ALLOW_IPS"}
"""Variables of other projects that our services have."""

NEEDS = {
    "gateway": {"command_api", "query_api", "relay"},
    "command-api": {"command_api", "relay"},
    "query-api": {"query_api"},
    "projections": {"projections"},
    **{one: {"worker"} for one in ("ingest", "worker-local", "worker-gpu", "worker-provider", "worker-triton")},
}
"""The roles of Postgres that each service may log in as, and no other."""


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def environment_of(service: Node) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def test_it_is_a_compose_file() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    for variables in ({}, FULL):
        errors = Draft7Validator(schema).iter_errors(compose.load(variables))
        assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("${A}-$A-$$A", "a-a-$A"),
        ("${B:-b}${E:-e}${E-x}", "be"),
        ("${A:+x}${B:+x}${E:+x}${E+y}", "xy"),
        ('${A:+${B:-["b"]}}c', '["b"]c'),
    ],
)
def test_variables_are_put_in_as_compose_does(text: str, made: str) -> None:
    assert compose.interpolated(text, {"A": "a", "E": ""}) == made


def test_a_variable_that_must_be_set_is_named() -> None:
    with pytest.raises(ValueError, match="A: set it"):
        compose.interpolated("${A:?set it}", {})


@pytest.mark.parametrize("name", OURS)
def test_every_name_in_the_environment_is_a_setting(name: str) -> None:
    known = {"__".join(path).upper() for path in paths(Settings)}
    for variable in environment_of(OURS[name]):
        kind, _, setting = variable.partition("_")
        if kind == "PARLEY" and variable != "PARLEY_SECRETS_DIR":
            parts = setting.split("__")
            if parts[0] == "POOLS":
                parts[1] = "LOCAL"
            assert "__".join(parts) in known, variable
        elif kind == "LLM":
            assert setting.lower() in {"model_file", "cpu_threads"}, variable
        else:
            assert variable in STANDARD | {"PARLEY_SECRETS_DIR"}, variable


@pytest.mark.parametrize("variables", [{}, FULL], ids=["as it is", "every pool"])
@pytest.mark.parametrize("name", OURS)
def test_settings_take_what_each_service_is_given(
    name: str, variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = compose.services(variables)[name]
    if not variables and set(service.get("profiles", ())) & {"provider", "triton"}:
        return  # their pools have no models then
    settings = settings_of(service, tmp_path, monkeypatch)
    assert list(settings.pools) == (["local", "provider", "triton"] if variables and name != "secrets" else ["local"])
    command = service["command"]
    if command[0] == "worker":
        pool = settings.pools[command[2]]
        assert pool.default_model is not None
        assert (pool.backend == "openai") == bool(pool.keys)


def settings_of(service: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What a service's settings are, with the secrets that it has."""
    made, mounted = tmp_path / "made", tmp_path / "mounted"
    secret_files.write(made, "postgres:5432/parley", "redis:6379")
    (made / "provider_key").write_text("sk-of-a-test")
    mounted.mkdir()
    for target, source in compose.secret_names(service).items():
        (mounted / target).write_bytes((made / source).read_bytes())
    for variable, value in environment_of(service).items():
        monkeypatch.setenv(variable, str(mounted) if variable == "PARLEY_SECRETS_DIR" else value)
    return Settings()


@pytest.mark.parametrize("name", NEEDS)
def test_each_service_has_the_secrets_that_it_needs_and_no_more(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(OURS[name], tmp_path, monkeypatch)
    roles = {role for role, url in settings.postgres.role_urls if url is not None}
    assert roles == NEEDS[name]
    assert settings.postgres.url is None
    assert settings.redis.url is not None
    assert settings.bus.pulsar.token is not None
    assert settings.bus.pulsar.token.get_secret_value() != (tmp_path / "made" / "pulsar_admin_token").read_text()
    security = settings.security
    assert (security.key_pepper is not None) == bool(roles & {"command_api", "query_api"})
    assert (security.master_key is not None) == (name != "projections")
    assert (security.signing_key is not None) == (name == "projections")


def test_every_secret_is_one_that_is_made_or_the_operators_own(tmp_path: Path) -> None:
    made = set(secret_files.write(tmp_path / "made", "postgres:5432/parley", "redis:6379"))
    assert {Path(one["file"]).name for one in compose.load()["secrets"].values()} == made - {"redis_password"} | {
        "provider_key"
    }
    for name, secret in compose.load()["secrets"].items():
        assert Path(secret["file"]) == Path("deploy/secrets") / name
    used = {source for service in SERVICES.values() for source in compose.secret_names(service).values()}
    assert used == set(compose.load()["secrets"])


def test_secrets_are_in_no_environment() -> None:
    for name, service in SERVICES.items():
        for variable in environment_of(service):
            if "PASSWORD" in variable or "TOKEN" in variable or "SECRET" in variable:
                assert variable in {
                    "POSTGRES_PASSWORD_FILE",
                    "GF_SECURITY_ADMIN_PASSWORD__FILE",
                    "PARLEY_SECRETS_DIR",
                    "PULSAR_PREFIX_tokenSecretKey",
                }, (name, variable)


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_of_the_command_lines(name: str) -> None:
    command: Any = typer.main.get_command(app)
    arguments = list(OURS[name]["command"])
    while isinstance(command, TyperGroup) and not arguments[0].startswith("-"):
        command = command.commands[arguments.pop(0)]
    if arguments != ["--help"]:
        assert not isinstance(command, TyperGroup)
        command.make_context(name, arguments)


def test_the_image_starts_what_the_package_installs() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package["scripts"] == {"parley": "cli.main:app"}
    for service in OURS.values():
        assert str(service["image"]).removesuffix("-cuda") == f"parley:{package['version']}"
        assert service["build"]["target"] == ("cuda" if service["image"].endswith("-cuda") else "cpu")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_health_check_or_none_on_purpose(name: str) -> None:
    health = SERVICES[name]["healthcheck"]
    if name in ONCE | {"otel-collector", "jaeger"}:
        assert health == {"disable": True}
        return
    assert health["interval"]
    assert health["retries"] >= 3
    if name in OURS:
        assert health["test"] == ["CMD", "python", "-P", "-m", "cli.ready"]


@pytest.mark.parametrize("name", sorted(set(OURS) - ONCE))
def test_it_answers_probes_where_its_health_check_asks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(OURS[name], tmp_path, monkeypatch)
    is_http = OURS[name]["command"][0] in ("gateway", "command-api", "query-api")
    assert ready.port(environment_of(OURS[name])) == (settings.port if is_http else settings.health_port)
    assert settings.host == "0.0.0.0"


def test_others_are_asked_for_on_the_ports_where_ours_expect_them() -> None:
    environment = environment_of(OURS["gateway"])
    assert environment["PARLEY_BUS__PULSAR__ADMIN_URL"] == "http://pulsar:8080"
    assert "http://127.0.0.1:8080/" in SERVICES["pulsar"]["healthcheck"]["test"][1]
    assert environment["PARLEY_BUS__PULSAR__URL"] == "pulsar://pulsar:6650"
    assert environment["PARLEY_POOLS__TRITON__BASE_URL"] == "grpc://triton:8001"
    assert "--grpc-port=8001" in SERVICES["triton"]["command"]
    assert "--port=5432" in SERVICES["postgres"]["healthcheck"]["test"]


def test_the_servers_are_those_that_everything_is_tested_with() -> None:
    assert SERVICES["pulsar"]["image"] == f"apachepulsar/pulsar:{PULSAR}"
    given = dict(pair.split("=", 1) for pair in SERVICES["postgres"]["command"][2::2])
    wanted = {name: value for name, value in EMBEDDED_POSTGRES.items() if name != "listen_addresses"}
    assert wanted.items() <= given.items()
    pulsar = environment_of(SERVICES["pulsar"])
    assert pulsar["PULSAR_PREFIX_superUserRoles"] == secret_files.PULSAR_ADMINISTRATOR
    assert OURS["pulsar-setup"]["command"][-1] == secret_files.PULSAR_SERVICE
    for setting, value in (("managedLedgerNewEntriesCheckDelayInMillis", "0"), ("nettyMaxFrameSizeBytes", "5253120")):
        assert pulsar[f"PULSAR_PREFIX_{setting}"] == value


def mounts() -> Iterator[tuple[str, str]]:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", ()):
            yield name, mount.split(":")[0]


def test_every_folder_that_is_mounted_is_there() -> None:
    volumes = set(compose.load()["volumes"])
    for name, source in mounts():
        if source.startswith("./"):
            assert (ROOT / source).is_dir(), (name, source)
        else:
            assert source in volumes, (name, source)
    assert volumes == {source for _, source in mounts() if not source.startswith("./")}


@pytest.mark.parametrize("folder", ["secrets", "certificates"])
def test_git_never_has_what_lies_in_a_folder_of_secrets(folder: str) -> None:
    assert (ROOT / "deploy" / folder / ".gitignore").read_text() == "*\n!.gitignore\n"


def test_the_page_puts_certificates_where_caddy_finds_them() -> None:
    """As root's: without capabilities, root reads nobody else's file of mode 600."""
    given = dict(re.findall(r"^sudo install -o root -m (\d+) \S+ deploy/certificates/(\S+)$", PAGE, re.MULTILINE))
    (line,) = re.findall(r"`CADDY_TLS=tls /certificates/(\S+) /certificates/(\S+)`", PAGE)
    assert tuple(given.values()) == line
    assert "600" in given
    assert "./deploy/certificates:/certificates:ro" in SERVICES["caddy"]["volumes"]
    assert "user" not in SERVICES["caddy"]


@pytest.mark.parametrize("name", SERVICES)
def test_it_can_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert float(limits["cpus"]) <= 2, "more than a small machine has keeps it from starting"
    image = str(service["image"]).rpartition(":")
    assert image[0]
    assert image[2] not in ("latest", "main")
    assert any(character.isdigit() for character in image[2])


def test_nothing_is_published_but_on_this_machine_unless_told_otherwise() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    for port in ports:
        assert str(port).startswith("127.0.0.1:"), port
    assert [
        name for name, service in compose.services().items() if service.get("ports") and "profiles" not in service
    ] == ["caddy"]
    for service in SERVICES.values():
        if service.get("ports"):
            assert "outside" in service["networks"]


def test_what_is_not_asked_for_by_its_profile_is_not_started() -> None:
    behind = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert behind == {
        "worker-gpu": ["gpu"],
        "worker-provider": ["provider"],
        "worker-triton": ["triton"],
        "triton": ["triton"],
        "operator": ["operator"],
        "secrets": ["operator"],
        **{name: ["observability"] for name in ("otel-collector", "jaeger", "prometheus", "grafana")},
    }
    for name, service in SERVICES.items():
        # Compose refuses to start what needs a service of a profile that is off.
        for other in service.get("depends_on", {}):
            assert set(behind.get(other, ())) <= set(behind.get(name, ())), f"{name} needs {other}"


def test_who_computes_on_a_gpu_is_given_one_and_nobody_else() -> None:
    reserved = {
        name: service["deploy"]["resources"]["reservations"]["devices"]
        for name, service in SERVICES.items()
        if "reservations" in service.get("deploy", {}).get("resources", {})
    }
    one = {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert reserved == {"worker-gpu": [one], "triton": [one]}
    assert OURS["worker-gpu"]["build"]["target"] == "cuda"
    assert OURS["worker-gpu"]["image"] != OURS["worker-local"]["image"]
    # The same pool, the same model, and the same limits else.
    for same in ("command", "environment", "secrets", "volumes", "networks"):
        assert OURS["worker-gpu"][same] == OURS["worker-local"][same]
    assert OURS["worker-gpu"]["deploy"]["resources"]["limits"] == OURS["worker-local"]["deploy"]["resources"]["limits"]


def test_servers_have_no_way_out() -> None:
    assert compose.load()["networks"]["servers"] == {"internal": True}
    for name in ("postgres", "redis", "pulsar", "projections", "query-api", "migrate"):
        assert SERVICES[name]["networks"] == ["servers"]


def test_containers_get_longer_to_stop_than_their_services_take() -> None:
    for name in OURS:
        if name.startswith("worker-"):
            grace_s = float(environment_of(OURS[name])["PARLEY_WORKER__GRACE_S"])
            assert int(OURS[name]["stop_grace_period"].removesuffix("s")) >= grace_s + 10


def test_services_wait_for_what_they_cannot_start_without() -> None:
    for name in set(OURS) - ONCE:
        assert OURS[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    for service in SERVICES.values():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            assert how == {"condition": wanted}


def test_the_page_migrates_before_the_old_services_are_removed() -> None:
    commands = re.findall(r"^docker compose (.*)$", PAGE.partition("## Upgrade\n")[2], re.MULTILINE)
    assert commands[:4] == ["build", "run --rm pulsar-setup", "run --rm migrate", "up --detach"]


def test_the_page_runs_services_that_are_there() -> None:
    named = set(re.findall(r"docker compose run --rm ([a-z-]+)", PAGE))
    assert {"secrets", "operator", "migrate"} <= named <= set(SERVICES)


def test_prometheus_asks_every_service_on_its_port() -> None:
    asked: dict[int, set[str]] = {}
    configuration: Any = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    for job in configuration["scrape_configs"]:
        for one in job.get("dns_sd_configs", ()):
            asked.setdefault(one["port"], set()).update(one["names"])
    for name in set(OURS) - ONCE:
        assert name in asked[ready.port(environment_of(OURS[name]))]
    assert {name for names in asked.values() for name in names} <= set(SERVICES)


def test_the_page_names_the_collector_as_the_exporter_asks_it() -> None:
    """OTLP over HTTP, which is the one exporter that is installed."""
    collector: Any = yaml.safe_load((ROOT / "deploy/otel/collector.yaml").read_text())
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any(
        one.startswith("opentelemetry-exporter-otlp-proto-http") for one in package["optional-dependencies"]["otel"]
    )
    assert re.findall(r"http://otel-collector:\d+", PAGE) == [f"http://otel-collector:{port}"]


def test_the_model_that_triton_runs_is_in_its_repository() -> None:
    model = ROOT / "deploy/triton/models/chat"
    assert 'backend: "vllm"' in (model / "config.pbtxt").read_text()
    assert json.loads((model / "1/model.json").read_text())["model"]


def test_shell_commands_can_be_read_by_a_shell() -> None:
    for service in SERVICES.values():
        test = service["healthcheck"].get("test", [])
        if test[:1] == ["CMD-SHELL"]:
            assert shlex.split(test[1])


def test_the_health_check_names_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PARLEY_PORT", str(held.getsockname()[1]))
        monkeypatch.delenv("PARLEY_HEALTH_PORT", raising=False)
        assert "does not answer" in ready.reasons()["service"]
