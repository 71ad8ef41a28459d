"""The page on metrics names each that the code declares, with its labels, and no other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache

import yaml

from tests.architecture.test_dependencies import PACKAGES, ROOT

PAGE = ROOT / "docs/how-to/observability.md"

_PROGRAM = """
import importlib, json
from prometheus_client import REGISTRY
for name in {modules!r}:
    importlib.import_module(name)
found = {{}}
for collector in set(REGISTRY._collector_to_names):
    name = getattr(collector, "_name", "")
    if name.startswith("parley_"):
        found[name + "_total" * (collector._type == "counter")] = sorted(collector._labelnames)
print(json.dumps(found))
"""


@cache
def declared() -> dict[str, list[str]]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    counting = [file for file in files if "from prometheus_client import" in file.read_text()]
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in counting]
    program = _PROGRAM.format(modules=sorted(modules))
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=100
    )
    found: dict[str, list[str]] = json.loads(told.stdout)
    return found


def test_the_page_names_every_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| `(parley_\w+)` \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    named = {name: sorted(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert len(named) == len(rows) > 25
    assert named == declared()


def test_no_label_grows_without_bound() -> None:
    used = {label for labels in declared().values() for label in labels}
    bounded = {"method", "route", "status", "pool", "model", "kind", "outcome", "reason", "dimension", "topic", "what"}
    # Of keys that operators give, in the settings or one by one; those of tenants are not told.
    assert used == bounded | {"key"}


def test_every_alert_is_on_the_page() -> None:
    alerts = re.findall(r"- alert: (\w+)", (ROOT / "deploy/alerts/alerts.yaml").read_text())
    assert len(alerts) > 10
    page = PAGE.read_text()
    assert [alert for alert in alerts if f"`{alert}`" not in page] == []


def test_dashboards_and_rules_ask_for_what_is_there() -> None:
    files = [*(ROOT / "deploy/alerts").glob("*.yaml"), *(ROOT / "deploy/dashboards").glob("*.json")]
    assert len(files) >= 5
    text = "\n".join(file.read_text() for file in files)
    asked = {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\bparley_[a-z_]+", text)}
    assert len(asked) > 20
    assert asked - declared().keys() == set()
    recorded = set(re.findall(r"record: (parley:\w+:\w+)", text))
    assert set(re.findall(r"\bparley:\w+:\w+", text)) == recorded


def test_the_collector_has_what_its_pipelines_name() -> None:
    given = yaml.safe_load((ROOT / "deploy/otel/collector.yaml").read_text())
    for pipeline in given["service"]["pipelines"].values():
        for kind, names in pipeline.items():
            assert set(names) <= given[kind].keys()
