"""The chart as helm has it: linted, rendered, packed; and values that it refuses."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from kratos_sync.infrastructure.secret_files import FROM_FILES
from tests.deploy.chart import (
    CASES,
    CHART,
    FOLDER,
    KUBERNETES,
    ROOT,
    Manifest,
    environment_of,
    golden,
    helm,
    process_of,
    rendered,
    values_of,
    without_copies,
)

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))
PROCESSES = ("api", "relay", "worker", "reconcile", "console", "migrate")


@pytest.mark.parametrize("case", CASES)
def test_helm_finds_nothing_wrong(case: str, tmp_path: Path) -> None:
    linted = helm("lint", "--strict", str(CHART), "--values", str(values_of(case)), home=tmp_path)

    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "[WARNING]" not in linted.stdout


@pytest.mark.parametrize("case", CASES)
def test_helm_renders_what_is_recorded(case: str, tmp_path: Path) -> None:
    """After a change of the chart: `python -m tests.deploy.chart` records it anew."""
    made = without_copies(rendered("--values", str(values_of(case)), home=tmp_path))

    assert made == golden(case)


def test_alerts_dashboard_and_grants_are_those_that_others_use(tmp_path: Path) -> None:
    made = rendered("--values", str(values_of("everything")), home=tmp_path)
    monitoring = ROOT / "deploy" / "monitoring"
    alerts = yaml.safe_load((monitoring / "alerts.yaml").read_text())
    (rule,) = [each for each in made if each["kind"] == "PrometheusRule"]
    data = {
        name: content
        for each in made
        if each["kind"] == "ConfigMap"
        for name, content in each["data"].items()
    }

    of_namespace = re.compile(r'\{namespace="identity"\}|(?<=\{)namespace="identity", ')
    assert without(of_namespace, rule["spec"]) == alerts
    assert data == {
        "kratos-sync.json": (monitoring / "dashboard.json").read_text(),
        "grants.sql": (ROOT / "deploy" / "postgres" / "grants.sql").read_text(),
    }


def without(pattern: re.Pattern[str], rules: Manifest) -> Manifest:
    for group in rules["groups"]:
        for each in group["rules"]:
            each["expr"] = pattern.sub("", each["expr"])
            # By which the operator's Alertmanager sends it to whoever looks after the namespace.
            assert each["labels"].pop("namespace") == "identity"
    return rules


def test_a_package_of_the_chart_has_what_it_only_links_to(tmp_path: Path) -> None:
    packed = helm("package", str(CHART), "--destination", str(tmp_path), home=tmp_path / "home")
    assert packed.returncode == 0, packed.stderr

    (file,) = tmp_path.glob("*.tgz")
    linked = [path for path in CHART.iterdir() if path.is_symlink()]
    assert len(linked) == 3
    with tarfile.open(file) as archive:
        for path in linked:
            content = archive.extractfile(f"kratos-identity-sync/{path.name}")
            assert content is not None
            assert content.read() == path.read_bytes()


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("api.replica=3", "'replica'"),
        ("relay.env.METRICS_PORT=9", "METRICS_PORT"),
        ("worker.env.WORKER_THREADS=8", "got number, want string"),
        ("secrets.PASSWORD.name=x", "PASSWORD"),
        ("console.replicas=2", "maximum: got 2, want 1"),
        ("reconcile.every=hourly", "hourly"),
        ("reconcile.every=59s", "59s"),
        ("image.digest=latest", "latest"),
        ("image.repository=an image", "an image"),
        ("image.tag=1 2", "1 2"),
        ("env.DATABASE_URL=postgresql://x", "DATABASE_URL"),
        ("api.env.DATABASE_URL_FILE=/x", "DATABASE_URL_FILE"),
        ("api.resources.limits.memory=256MiB", "256MiB"),
        ("networkPolicy.egress.broker.ports[0]=0", "minimum: got 0, want 1"),
        ("pod.containers=null", "containers"),
        ("fullnameOverride=1st", "1st"),
        ("env.SENTRY_DSN.valueFrom.secretKeyRef.name=x", "'secretKeyRef' not allowed"),
        ("podLabels.team=a team", "a team"),
        ("monitoring.rules.labels.team=a team", "a team"),
        ("worker.autoscaling.metricLabels.team=a team", "a team"),
        ("worker.volumes[0].name=tmp", "/worker/volumes/0/name"),
        # The five seconds of its preStop hook are within it.
        ("api.terminationGracePeriodSeconds=5", "minimum: got 5, want 6"),
    ],
)
def test_a_value_that_means_nothing_is_refused(option: str, reason: str, tmp_path: Path) -> None:
    refused = helm("template", "x", str(CHART), "--set", option, home=tmp_path)

    assert refused.returncode == 1
    assert "don't meet the specifications of the schema" in refused.stderr
    assert reason in refused.stderr


def test_a_block_of_addresses_is_a_peer_by_itself(tmp_path: Path) -> None:
    peer = "networkPolicy.ingress.api[0]"
    options = f"{peer}.ipBlock.cidr=10.0.0.0/8,{peer}.podSelector.matchLabels.app=kratos"
    refused = helm("template", "x", str(CHART), "--set", options, home=tmp_path)

    assert refused.returncode == 1
    assert "/networkPolicy/ingress/api/0" in refused.stderr


@pytest.mark.parametrize(
    ("options", "from_files"),
    [
        (["secrets"], {"api", "relay", "worker", "reconcile", "migrate"}),
        (["relay.secrets"], {"relay"}),
        (["secrets", "worker.env"], {"api", "relay", "reconcile", "migrate"}),
        (["worker.env", "worker.secrets"], {"worker"}),
    ],
)
def test_a_setting_comes_from_a_secret_or_as_it_stands_and_never_both(
    options: list[str], from_files: set[str], tmp_path: Path
) -> None:
    ways = {"env": "=http://kratos", "secrets": ".name=x,{0}.key=y"}
    given = [
        f"{setting}{ways[option.rpartition('.')[2]].format(setting)}"
        for option in options
        for setting in [f"{option}.KRATOS_ADMIN_URL"]
    ]
    made = rendered("--set", ",".join(given), home=tmp_path)

    taken = {
        process_of(each): {
            variable for variable in environment_of(each) if variable.startswith("KRATOS_ADMIN_URL")
        }
        for each in made
        if each["kind"] in {"Deployment", "Job"}
    }
    assert {
        name for name, found in taken.items() if found == {"KRATOS_ADMIN_URL_FILE"}
    } == from_files
    assert all(len(variables) == 1 for variables in taken.values())


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("kratos-sync", "kratos-sync-api"),
        ("prod", "prod-kratos-sync-api"),
        ("acme.prod", "acme-prod-kratos-sync-api"),
        ("x" * 53, "x" * 50 + "-api"),
    ],
)
def test_objects_are_named_after_the_release_and_what_they_are(
    release: str, name: str, tmp_path: Path
) -> None:
    made = rendered(home=tmp_path, release=release)
    services = [each["metadata"]["name"] for each in made if each["kind"] == "Service"]

    assert services == [name]


@pytest.mark.parametrize("release", ["kratos-sync.2", "y" * 53, "404"])
def test_names_and_labels_are_such_as_kubernetes_accepts(release: str, tmp_path: Path) -> None:
    override = ("--set", "fullnameOverride=identities") if release.isdigit() else ()
    options = ("--values", str(values_of("everything")), "--set", "fullnameOverride=", *override)
    made = rendered(*options, home=tmp_path, release=release)

    for each in made:
        # The strictest of all: a Service's.
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", each["metadata"]["name"])
        template = each["spec"].get("template", {}) if "spec" in each else {}
        for labels in (each["metadata"]["labels"], template.get("metadata", {}).get("labels", {})):
            for value in labels.values():
                assert isinstance(value, str)
                assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    secret = ("--set-string", "secrets.DATABASE_URL.name=7,secrets.DATABASE_URL.key=1e3")
    made = rendered("--namespace", "2024", *secret, home=tmp_path)

    assert {each["metadata"]["namespace"] for each in made} == {"2024"}
    for each in (each for each in made if each["kind"] == "Deployment"):
        volumes = {v["name"]: v for v in each["spec"]["template"]["spec"]["volumes"]}
        urls = [source["secret"] for source in volumes["secrets"]["projected"]["sources"]]
        assert {"name": "7", "items": [{"key": "1e3", "path": "database_url"}]} in urls


@pytest.mark.parametrize(
    ("release", "options", "reason"),
    [
        ("1st", (), "1st-kratos-sync does not: set fullnameOverride"),
        (
            "x",
            ("worker.autoscaling.enabled=true,worker.autoscaling.minReplicas=9",),
            "minReplicas is more than its maxReplicas",
        ),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_before(
    release: str, options: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    given = [word for option in options for word in ("--set", option)]
    refused = helm("template", release, str(CHART), *KUBERNETES, *given, home=tmp_path)

    assert refused.returncode == 1
    assert reason in refused.stderr


def test_the_chart_may_be_a_dependency_that_is_switched_on(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    shutil.copytree(CHART, parent / "charts" / "kratos-identity-sync")
    on = {"name": "kratos-identity-sync", "version": "0.1.0", "condition": "identities.enabled"}
    about = {"apiVersion": "v2", "name": "parent", "version": "0.1.0"}
    (parent / "Chart.yaml").write_text(
        yaml.safe_dump({**about, "dependencies": [{**on, "alias": "identities"}]})
    )
    made = {}
    for answer in ("true", "false"):
        enabled = ("--set", f"identities.enabled={answer}")
        run = helm("template", "x", str(parent), *KUBERNETES, *enabled, home=tmp_path)
        assert run.returncode == 0, run.stderr
        made[answer] = run.stdout.count("kind: Deployment")

    assert made == {"true": 4, "false": 0}


def test_without_ids_a_pod_takes_those_that_openshift_gives_it(tmp_path: Path) -> None:
    unset = ",".join(
        f"podSecurityContext.{key}=null" for key in ("runAsUser", "runAsGroup", "fsGroup")
    )
    made = rendered("--set", unset, home=tmp_path)

    for each in (each for each in made if each["kind"] in {"Deployment", "Job"}):
        assert each["spec"]["template"]["spec"]["securityContext"] == {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_a_setting_may_use_what_kubernetes_knows(tmp_path: Path) -> None:
    address = {"valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}
    env = {"HOST_IP": address, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://$(HOST_IP):4318"}
    made = rendered("--set-json", f"relay.env={json.dumps(env)}", home=tmp_path)
    (relay,) = [
        each
        for each in made
        if (each["kind"], each["metadata"]["name"]) == ("Deployment", "kratos-sync-relay")
    ]

    (container,) = relay["spec"]["template"]["spec"]["containers"]
    names = [each["name"] for each in container["env"]]
    assert container["env"][names.index("HOST_IP")] == {"name": "HOST_IP", **address}
    # Kubernetes replaces only what was set before.
    assert names.index("HOST_IP") < names.index("OTEL_EXPORTER_OTLP_ENDPOINT")


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_every_port_listens_where_it_is_told(address: str, tmp_path: Path) -> None:
    options = ("--set", f"listenOn={address}", "--set", "console.enabled=true")
    for each in rendered(*options, home=tmp_path):
        if each["kind"] != "Deployment":
            continue
        (container,) = each["spec"]["template"]["spec"]["containers"]
        words = container["args"]
        assert {"name": "METRICS_HOST", "value": address} in container["env"]
        if words[0] in {"api", "console"}:
            assert words[words.index("--host") + 1] == address


def test_the_schema_of_the_values_is_a_schema_and_the_values_follow_it(tmp_path: Path) -> None:
    (tmp_path / "values.json").write_text(json.dumps(VALUES))
    for arguments in (
        ("--check-metaschema", str(CHART / "values.schema.json")),
        ("--schemafile", str(CHART / "values.schema.json"), str(tmp_path / "values.json")),
    ):
        checked = subprocess.run(
            [sys.executable, "-m", "check_jsonschema", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout


def paths(values: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in values.items():
        found.append((*before, key))
        if isinstance(value, dict):
            found += paths(value, (*before, key))
    return found


def test_the_schema_knows_every_value_and_no_other() -> None:
    def known(schema: dict[str, Any], path: tuple[str, ...]) -> bool:
        while "$ref" in schema:
            schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
        if not path:
            return True
        if path[0] in schema.get("properties", {}):
            inside = schema["properties"][path[0]]
            # What is said once for every process has its schema there.
            shared = [known(part, path) for part in schema.get("allOf", ())]
            return known(inside, path[1:]) or any(shared)
        return "properties" not in schema

    assert [path for path in paths(VALUES) if not known(SCHEMA, path)] == []
    for name in SCHEMA["properties"].keys() - {"global", "enabled"}:
        assert name in VALUES
        inside = SCHEMA["properties"][name].get("properties", {})
        assert inside.keys() <= VALUES[name].keys() if inside else True


def test_a_template_uses_every_value() -> None:
    leaves = {path[-1] for path in paths(VALUES) if path[0] not in {"env", "secrets"}}
    words = set(re.findall(r"\w+", TEMPLATES))
    given = {"podSecurityContext", "securityContext", "readiness", "resources", "labels"}
    inside = {
        path[-1]
        for path in paths(VALUES)
        if given & set(path[:-1]) or "secrets" in path[:-1] or "dns" in path[:-1]
    }

    assert leaves - inside - words == set()


def test_every_value_is_explained() -> None:
    text = (CHART / "values.yaml").read_text()
    table = text.partition("# Every process has these values:")[2].partition("\n\n")[0]
    shared = set(re.findall(r"[a-z]\w+", table))

    for process in PROCESSES:
        assert re.search(rf"^# .+\n{process}:$", text, re.MULTILINE)
    common = {key for process in PROCESSES for key in VALUES[process]} & shared
    assert {"enabled", "replicas", "env", "secrets", "volumes", "resources"} <= common


def test_the_schema_allows_those_secrets_that_may_be_in_files() -> None:
    allowed = SCHEMA["definitions"]["secrets"]["propertyNames"]["enum"]

    assert allowed == sorted(name.upper() for name in FROM_FILES)


def test_the_records_have_no_manifests_of_another_case() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.yaml")) == sorted(
        name for case in CASES for name in (f"{case}.yaml", f"{case}.values.yaml")
    )
