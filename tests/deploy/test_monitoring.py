"""The alert rules and the dashboard name metrics that exist, and each alert is described."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.faults.alerts import EXPECTED
from tests.faults.kinds import KINDS
from tests.programs import installed_program
from tests.waiting import DEADLINE_SECONDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/monitoring"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
PAGE = (ROOT / "docs/alerts.md").read_text()
SUFFIXES = re.compile(r"_(bucket|sum|count)$")
OF_EVERY_PYTHON_PROCESS = {
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
}


def metrics_in(expression: str) -> set[str]:
    names = re.findall(r"\b(?:kratos_sync|process)_[a-z_]+\b", expression)
    return {SUFFIXES.sub("", name) for name in names}


def expressions() -> Iterator[tuple[str, str]]:
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_a_rule_and_a_panel_name_only_metrics_that_the_service_has(
    where: str, expression: str
) -> None:
    from kratos_sync.infrastructure.observability.definitions import METRICS

    known = {metric.name for metric in METRICS} | OF_EVERY_PYTHON_PROCESS
    assert metrics_in(expression) - known == set()
    assert metrics_in(expression) or "up{" in expression


def test_each_panel_is_about_the_namespaces_that_were_chosen_and_at_first_about_all() -> None:
    (chosen,) = [each for each in DASHBOARD["templating"]["list"] if each["name"] == "namespace"]
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]

    for expression in shown:
        selectors = re.findall(r"\b(?:kratos_sync|process)_\w+(.*?)[,}\s)\[]", expression)
        assert selectors
        assert {*selectors} == {'{namespace=~"$namespace"'}, expression
    # Also what has no such label, outside of Kubernetes.
    assert (chosen["current"]["value"], chosen["allValue"]) == ("$__all", ".*")
    assert metrics_in(chosen["definition"]) == {"kratos_sync_build_info"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_its_paragraph_in_the_documentation(rule: dict[str, Any]) -> None:
    assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
    assert re.search(rf"^### {rule['alert']}\n\w", PAGE, re.MULTILINE)
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def test_every_paragraph_describes_an_alert() -> None:
    described = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    assert sorted(described) == sorted(rule["alert"] for rule in RULES)


def test_every_kind_of_fault_has_an_expected_alert_or_a_reason_to_have_none() -> None:
    assert EXPECTED.keys() == KINDS.keys()
    expected = {
        alert for alerts in EXPECTED.values() if not isinstance(alerts, str) for alert in alerts
    }
    assert expected <= {rule["alert"] for rule in RULES}


def test_every_alert_has_a_unit_test() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    assert {test["name"] for test in tests} == {rule["alert"] for rule in RULES} | {
        "A healthy service"
    }


def promtool(*arguments: str) -> str:
    return subprocess.run(
        [installed_program("promtool", "prometheus"), *arguments],
        cwd=FOLDER,
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    ).stdout


def test_promtool_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", "alerts.yaml")


def test_each_alert_fires_when_it_should_and_none_for_a_healthy_service() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml")
