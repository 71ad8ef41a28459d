"""Kubernetes manifests as tests read them: those that are committed, and those that Helm makes of values."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "parley"
COMMITTED = ROOT / "deploy" / "k8s"
KUBERNETES = "1.30.0"

Object = dict[str, Any]


@dataclass(frozen=True)
class Manifests:
    """``values`` is what the objects were rendered from, the chart's own defaults included."""

    objects: list[Object]
    values: Object

    def of_kind(self, *kinds: str) -> Iterator[Object]:
        return (each for each in self.objects if each["kind"] in kinds)

    def named(self, kind: str, name: str) -> Object:
        return next(each for each in self.of_kind(kind) if each["metadata"]["name"] == name)

    def workloads(self) -> Iterator[tuple[str, Object]]:
        """Component and pod template of everything that runs."""
        for each in self.of_kind("Deployment", "StatefulSet", "Job"):
            template = each["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template

    def services(self) -> dict[str, Object]:
        """Component → container, of what runs Parley's own services."""
        return {
            component: template["spec"]["containers"][0]
            for component, template in self.workloads()
            if component not in ("postgres", "redis", "pulsar", "operator", "migrate", "pulsar-setup")
        }

    def parley_containers(self) -> dict[str, Object]:
        """Component → container, of everything that has Parley's image."""
        return {
            component: template["spec"]["containers"][0]
            for component, template in self.workloads()
            if component not in ("postgres", "redis", "pulsar")
        }


def committed() -> Manifests:
    objects = [each for file in sorted(COMMITTED.glob("*.yaml")) for each in _documents(file.read_text())]
    return Manifests(objects, _values("kubectl"))


def rendered(name: str, *arguments: str) -> Manifests:
    return Manifests(_documents(template(name, *arguments)), _values(name))


def template(name: str, *arguments: str) -> str:
    """What `helm template` prints for the values ``ci/<name>.yaml``. Raises CalledProcessError."""
    helm = shutil.which("helm")
    assert helm is not None, "Helm is not there: run `make check-helm`, which builds it"
    values = CHART / "ci" / f"{name}.yaml"
    command = [helm, "template", "parley", str(CHART), "--namespace", "parley", "--kube-version", KUBERNETES]
    command += ["--values", str(values), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def _documents(text: str) -> list[Object]:
    return [each for each in yaml.safe_load_all(text) if each]


def _values(name: str) -> Object:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    return _merged(defaults, yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text()))


def _merged(under: Object, over: Object) -> Object:
    """As Helm merges values: maps by their keys, and null takes away."""
    both = dict(under)
    for key, value in over.items():
        if value is None:
            both.pop(key, None)
        elif isinstance(value, dict) and isinstance(both.get(key), dict):
            both[key] = _merged(both[key], value)
        else:
            both[key] = value
    return both
