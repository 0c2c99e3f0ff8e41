"""What the chart has for Prometheus, its operator and its adapter."""

import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from pydantic import BaseModel

from kratos_sync.infrastructure.observability.definitions import METRICS, STATES
from tests.deploy.chart import ROOT, container_of, of_kind, rendered, selects, values_of
from tests.programs import installed_program

PAGE: Final = (ROOT / "docs" / "kubernetes.md").read_text()
ALERTS: Final = (ROOT / "deploy" / "monitoring" / "alerts.yaml").read_text()


def rule_of_the_adapter() -> dict[str, Any]:
    """As the page has it."""
    (rules,) = re.findall(r"```yaml\n(rules:.*?)```", PAGE, re.DOTALL)
    (rule,) = yaml.safe_load(rules)["rules"]["external"]
    found: dict[str, Any] = rule
    return found


def assert_prometheus_finds(
    test: dict[str, Any], folder: Path, rules: dict[str, Any] | None = None
) -> None:
    promtool = installed_program("promtool", "prometheus")
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules or {"groups": []}))
    tests = {"rule_files": ["rules.yaml"], "tests": [{"interval": "15s", **test}]}
    (folder / "tests.yaml").write_text(yaml.safe_dump(tests))
    tested = subprocess.run(
        [promtool, "test", "rules", "tests.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("kind", ["PodMonitor", "PrometheusRule"])
def test_the_operator_of_prometheus_accepts_its_manifests(kind: str) -> None:
    # Not imported as usual: mypy would read models of two megabytes.
    models = import_module("cloudcoil.models.prometheus_operator.v1")
    model: type[BaseModel] = getattr(models, kind)
    (manifest,) = of_kind("everything", kind).values()
    if kind == "PrometheusRule":
        manifest = {**manifest, "spec": yaml.safe_load(ALERTS)}

    read = model.model_validate(manifest)

    # A field that does not exist would be left out.
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == manifest


def test_prometheus_scrapes_every_process_as_the_job_that_the_alerts_expect() -> None:
    (monitor,) = of_kind("everything", "PodMonitor").values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]

    for manifest in of_kind("everything", "Deployment").values():
        assert selects(monitor["spec"]["selector"]["matchLabels"], manifest)
        assert endpoint["port"] in {port["name"] for port in container_of(manifest)["ports"]}
    (relabeling,) = endpoint["relabelings"]
    assert relabeling["targetLabel"] == "job"
    assert {relabeling["replacement"]} == set(re.findall(r'job="([^"]+)"', ALERTS))
    assert endpoint["interval"] == "15s"
    # By which a scaler tells the releases of a namespace apart.
    (scaler,) = of_kind("everything", "HorizontalPodAutoscaler").values()
    (metric,) = scaler["spec"]["metrics"]
    added = {re.sub(r"\W", "_", label) for label in monitor["spec"]["podTargetLabels"]}
    assert metric["external"]["metric"]["selector"]["matchLabels"].keys() == added
    assert not of_kind("default", "PodMonitor", "PrometheusRule")


def test_the_alerts_of_a_release_are_about_the_processes_of_its_namespace(tmp_path: Path) -> None:
    """Else an api elsewhere, such as a staging system's, would hide that this one has none."""
    made = rendered("--values", str(values_of("everything")), home=tmp_path)
    (rule,) = [each for each in made if each["kind"] == "PrometheusRule"]
    other = {
        "series": 'kratos_sync_build_info{namespace="staging", process="api"}',
        "values": "1x9",
    }
    fires = {
        "input_series": [other],
        "alert_rule_test": [
            {
                "eval_time": "1m",
                "alertname": "KratosSyncNoApi",
                "exp_alerts": [
                    {
                        "exp_labels": {
                            "severity": "critical",
                            "namespace": "identity",
                            "process": "api",
                        }
                    }
                ],
            }
        ],
    }

    for each in (each for group in rule["spec"]["groups"] for each in group["rules"]):
        each.pop("annotations")
        selectors = re.findall(
            r"\b(?:kratos_sync_\w+|process_\w+_seconds|up)\b(.*?)[,}\s)]", each["expr"]
        )
        assert selectors
        assert {*selectors} == {'{namespace="identity"'}, each["expr"]
    assert_prometheus_finds(fires, tmp_path, rule["spec"])


def test_workers_are_scaled_by_the_backlog_that_the_page_tells_the_adapter_to_serve() -> None:
    (scaler,) = of_kind("everything", "HorizontalPodAutoscaler").values()
    (metric,) = scaler["spec"]["metrics"]

    assert metric["external"]["metric"]["name"] == rule_of_the_adapter()["name"]["as"]
    assert metric["external"]["target"]["type"] == "AverageValue"
    assert "replicas" not in of_kind("everything", "Deployment")["worker"]["spec"]
    assert "replicas" in of_kind("default", "Deployment")["worker"]["spec"]
    assert not of_kind("default", "HorizontalPodAutoscaler")


def test_the_adapter_is_told_of_metrics_and_states_that_exist() -> None:
    named = set(re.findall(r"\bkratos_sync_\w+", PAGE)) - {"kratos_sync_backlog"}
    (states,) = re.findall(r'state=~"([a-z|]+)"', PAGE)

    assert named <= {metric.name for metric in METRICS} | {"kratos_sync_owner"}
    assert "kratos_sync_deliveries" in named
    assert set(states.split("|")) <= set(STATES)


def test_the_backlog_counts_what_workers_could_do_now_in_this_namespace(tmp_path: Path) -> None:
    values = {
        'deliveries{namespace="identity", instance="a", consumer="Mail", state="due"}': 500,
        # Of another relay, where none is the only one that exports.
        'deliveries{namespace="identity", instance="b", consumer="Mail", state="due"}': 500,
        'deliveries{namespace="identity", instance="a", consumer="Mail", state="leased"}': 100,
        'deliveries{namespace="identity", instance="a", consumer="Mail", state="waiting"}': 9_000,
        'deliveries{namespace="identity", instance="a", consumer="Crm", state="due"}': 7_000,
        'consumer_paused{namespace="identity", instance="a", consumer="Crm"}': 1,
        'consumer_paused{namespace="identity", instance="a", consumer="Mail"}': 0,
        # Another deployment's.
        'consumer_paused{namespace="staging", instance="c", consumer="Mail"}': 1,
        'deliveries{namespace="staging", instance="c", consumer="Mail", state="due"}': 3_000,
    }
    query = rule_of_the_adapter()["metricsQuery"]
    expression = query.replace("<<.LabelMatchers>>", 'namespace="identity"')
    test = {
        "input_series": [
            {"series": f"kratos_sync_{name}", "values": f"{value}x4"}
            for name, value in values.items()
        ],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": "30s",
                "exp_samples": [{"labels": "{}", "value": 600}],
            }
        ],
    }
    assert_prometheus_finds(test, tmp_path)
