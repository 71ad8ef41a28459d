"""What our dashboards and rules ask Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = sorted((DEPLOY / "alerts").glob("*.yaml"))
_COMPARISON = re.compile(r"^(?P<measured>.+) (?:==|>|<) [0-9.]+$", re.DOTALL)


def rules(kind: str) -> list[dict[str, Any]]:
    """``kind`` is `alert` or `record`."""
    groups = [group for file in ALERTS for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def measured(rule: dict[str, Any]) -> str:
    """What an alert compares with its threshold."""
    found = _COMPARISON.match(rule["expr"])
    assert found is not None, f"{rule['alert']} compares nothing"
    return found["measured"]


def panels() -> list[tuple[str, str]]:
    """Dashboard with panel, and query, of each target of each dashboard."""
    found = []
    for file in sorted((DEPLOY / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            found += [(f"{file.stem}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


def all_queries() -> dict[str, str]:
    """Query → where it stands; with an interval in place of Grafana's own."""
    found = {query.replace("$__rate_interval", "30s"): place for place, query in panels()}
    found |= {rule["expr"]: rule["record"] for rule in rules("record")}
    return found | {measured(rule): rule["alert"] for rule in rules("alert")}
