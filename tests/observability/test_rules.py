"""Alert and recording rules, by Prometheus's own tool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.observability.queries import ALERTS, DEPLOY, rules

CASES = Path(__file__).with_name("alerts_test.yaml")

pytestmark = pytest.mark.prometheus


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_and_the_configuration_are_valid(tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", *ALERTS)
    in_its_container = (DEPLOY / "prometheus/prometheus.yaml").read_text()
    assert "/etc/parley/alerts/" in in_its_container
    here = tmp_path / "prometheus.yaml"
    here.write_text(in_its_container.replace("/etc/parley/alerts/", f"{DEPLOY.resolve()}/alerts/"))
    assert f"SUCCESS: {len(ALERTS)} rule files found" in promtool("check", "config", here)


def test_each_alert_fires_when_it_is_to() -> None:
    fires = {
        case["alertname"]
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fires == {rule["alert"] for rule in rules("alert")}
    assert "SUCCESS" in promtool("test", "rules", CASES)
