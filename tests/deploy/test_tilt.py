"""The Tiltfile, run with functions that write down what they are asked; and what it brings to the cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from fastapi import FastAPI

from backplane.settings.doors import DoorSettings
from gateway import doors
from tests.deploy.manifests import CHART, ROOT, rendered

TILT = ROOT / "deploy" / "tilt"

Call = tuple[tuple[Any, ...], dict[str, Any]]


@pytest.fixture
def asked() -> dict[str, list[Call]]:
    calls: dict[str, list[Call]] = {}

    def named(name: str) -> Callable[..., None]:
        return lambda *arguments, **options: calls.setdefault(name, []).append((arguments, options))

    known = ("docker_build", "helm_resource", "k8s_resource", "k8s_yaml", "load", "local_resource", "namespace_create")
    exec((ROOT / "Tiltfile").read_text(), {"__builtins__": {}, **{name: named(name) for name in known}})
    return calls


def test_what_it_names_is_there(asked: dict[str, list[Call]]) -> None:
    (((_, chart), options),) = asked["helm_resource"]
    values = [flag.removeprefix("--values=") for flag in options["flags"]]
    ((manifest,), _), *_ = asked["k8s_yaml"]
    script = next(options["cmd"][1] for (name,), options in asked["local_resource"] if name == "key")
    for path in (chart, *values, *options["deps"], manifest, script):
        assert (ROOT / path).exists(), path
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert options["image_keys"] == [("image.repository", "image.tag")]
    assert defaults["image"].keys() >= {"repository", "tag"}
    (((image, _), _),) = asked["docker_build"]
    assert options["image_deps"] == [image] == [defaults["image"]["repository"]]


def test_resources_wait_for_resources_that_are_there(asked: dict[str, list[Call]]) -> None:
    names = {call[0][0] for kind in ("helm_resource", "local_resource", "k8s_resource") for call in asked[kind]}
    for kind in ("local_resource", "k8s_resource"):
        for _, options in asked[kind]:
            assert set(options["resource_deps"]) <= names


def test_the_script_that_makes_a_key_is_valid() -> None:
    subprocess.run(["sh", "-n", TILT / "key.sh"], check=True)


@pytest.mark.helm
def test_the_chat_application_reaches_the_gateway() -> None:
    manifests = rendered("minimal", "-f", str(TILT / "values.yaml"), "--set", "secrets.existing=")
    chat = yaml.safe_load((TILT / "open-webui.yaml").read_text())
    template = chat["spec"]["template"]
    environment = {each["name"]: each.get("value") for each in template["spec"]["containers"][0]["env"]}
    host, _, path = environment["OPENAI_API_BASE_URL"].removeprefix("http://").partition("/")
    (port,) = manifests.named("Service", host)["spec"]["ports"]
    assert port["port"] == 80
    app = FastAPI()
    for door in doors.of(DoorSettings()):
        app.include_router(door.router)
    assert f"/{path}/chat/completions" in app.openapi()["paths"]
    rule = manifests.named("NetworkPolicy", "parley-from-clients-to-gateway")["spec"]["ingress"][0]
    assert rule["from"] == [{"podSelector": {"matchLabels": template["metadata"]["labels"]}}]
    assert chat["metadata"]["namespace"] == "parley"
