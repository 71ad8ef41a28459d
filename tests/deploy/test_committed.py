"""Whether `make k8s` was run after the last change of the chart, told without Helm."""

from __future__ import annotations

import hashlib

from tests.deploy.manifests import CHART, COMMITTED


def test_committed_manifests_are_of_this_chart() -> None:
    parts = [CHART / "Chart.yaml", CHART / "values.yaml", CHART / "ci" / "kubectl.yaml"]
    parts += [file for file in (CHART / "templates").iterdir() if file.suffix in (".yaml", ".tpl")]
    now = {str(file.relative_to(CHART)): hashlib.sha256(file.read_bytes()).hexdigest() for file in parts}
    lines = (COMMITTED / "chart.sha256").read_text().splitlines()
    rendered = {name: digest for digest, name in (line.split() for line in lines)}
    assert rendered == now, "run `make k8s`"
