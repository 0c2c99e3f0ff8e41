"""What the chart renders, as recorded in tests/deploy/helm: valid, closed, and as Compose has it.

`tests/deploy/test_helm.py` compares the records with what helm renders now.
"""

import tomllib

import click
import kubernetes_validate
import pytest
import yaml

from kratos_sync.api.cli import main
from kratos_sync.infrastructure.observability.health import Health
from kratos_sync.infrastructure.observability.observer import Observer
from kratos_sync.infrastructure.secret_files import FROM_FILES
from kratos_sync.infrastructure.settings import Settings
from tests.deploy.chart import (
    CASES,
    CHART,
    RENDERED_FROM,
    ROOT,
    Manifest,
    all_of,
    cases_of,
    container_of,
    digest,
    environment_of,
    of_kind,
    pause_of,
    pod_of,
    process_of,
    selects,
)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ABOUT = yaml.safe_load((CHART / "Chart.yaml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SUPPORTED = ("1.30", kubernetes_validate.latest_version())
PROMETHEUS_OPERATOR = "monitoring.coreos.com/v1"
"""Of another project's definitions."""
KRATOS_ATTEMPTS_SECONDS = 25 + 1 + 25 + 3 + 25
WITH_PODS = {"Deployment", "Job"}


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_accepts_every_manifest(case: str, version: str) -> None:
    validated = [each for each in all_of(case) if each["apiVersion"] != PROMETHEUS_OPERATOR]

    assert len(validated) >= 18
    for manifest in validated:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_page_says_what_is_validated() -> None:
    page = " ".join((ROOT / "docs" / "kubernetes.md").read_text().split())
    numbers = [len(all_of(case)) for case in CASES]

    assert f"schemas of Kubernetes {' and '.join(v[:4] for v in SUPPORTED)}:" in page
    assert "{} manifests with the default values, and {} with everything".format(*numbers) in page


def test_the_chart_says_the_oldest_kubernetes_that_is_validated() -> None:
    assert ABOUT["kubeVersion"] == f">={SUPPORTED[0]}.0-0"


def test_the_chart_is_of_this_release() -> None:
    assert ABOUT["appVersion"] == PROJECT["version"]
    assert ABOUT["name"] == PROJECT["name"]


def test_every_process_runs_and_the_console_when_it_is_wanted() -> None:
    usual = {"api", "relay", "worker", "reconcile"}

    assert of_kind("default", "Deployment").keys() == usual
    assert of_kind("everything", "Deployment").keys() == {*usual, "console"}
    assert of_kind("default", "Job").keys() == {"migrate"}


@pytest.mark.parametrize("manifest", cases_of(*WITH_PODS))
def test_a_pod_runs_a_command_of_ours_with_options_that_exist(manifest: Manifest) -> None:
    called, *words = container_of(manifest)["args"]

    assert called == process_of(manifest)
    command = main.get_command(click.Context(main), called)
    assert command is not None
    _, left, _ = command.make_parser(click.Context(command)).parse_args(words)
    assert left == []


@pytest.mark.parametrize("manifest", cases_of("Deployment"))
def test_a_pod_has_the_time_to_stop_and_the_memory_that_compose_gives(manifest: Manifest) -> None:
    service = COMPOSE[process_of(manifest)]
    seconds = pod_of(manifest)["terminationGracePeriodSeconds"] - pause_of(manifest)

    assert f"{seconds}s" == service["stop_grace_period"]
    limit = container_of(manifest)["resources"]["limits"]["memory"]
    assert limit.lower() == f"{service['mem_limit']}i"


@pytest.mark.parametrize("manifest", cases_of(*WITH_PODS))
def test_a_pod_may_do_as_little_as_the_policy_restricted_asks(manifest: Manifest) -> None:
    pod, container = pod_of(manifest), container_of(manifest)

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
    assert all("hostPath" not in volume for volume in pod["volumes"])
    assert all("hostPort" not in port for port in container.get("ports", ()))


@pytest.mark.parametrize("manifest", cases_of(*WITH_PODS))
def test_the_user_of_a_pod_is_the_images(manifest: Manifest) -> None:
    context = pod_of(manifest)["securityContext"]

    assert (
        f"USER {context['runAsUser']}:{context['runAsGroup']}\n"
        in (ROOT / "Dockerfile").read_text()
    )


@pytest.mark.parametrize("case", CASES)
def test_nobody_has_a_right_in_kubernetes(case: str) -> None:
    assert not {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} & {
        each["kind"] for each in all_of(case)
    }
    accounts = of_kind(case, "ServiceAccount")
    assert accounts.keys() == of_kind(case, "Deployment").keys()
    for process, account in accounts.items():
        assert account["automountServiceAccountToken"] is False
        pod = pod_of(of_kind(case, "Deployment")[process])
        assert pod["serviceAccountName"] == account["metadata"]["name"]
    for manifest in of_kind(case, *WITH_PODS).values():
        assert pod_of(manifest)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("manifest", cases_of(*WITH_PODS))
def test_the_settings_of_a_pod_exist_and_its_secrets_are_files_that_are_mounted(
    manifest: Manifest,
) -> None:
    environment = environment_of(manifest)
    volumes = {volume["name"]: volume for volume in pod_of(manifest)["volumes"]}
    mounts = {each["name"]: each["mountPath"] for each in container_of(manifest)["volumeMounts"]}
    files = {
        f"{mounts['secrets']}/{item['path']}"
        for source in volumes["secrets"]["projected"]["sources"]
        for item in source["secret"]["items"]
    }

    named = {variable.removesuffix("_FILE").lower() for variable in environment}
    assert named <= Settings.model_fields.keys()
    given = {value for variable, value in environment.items() if variable.endswith("_FILE")}
    assert given == files
    assert {name for name, field in Settings.model_fields.items() if field.is_required()} <= named
    assert volumes["secrets"]["projected"]["defaultMode"] == 0o440
    assert volumes.keys() == mounts.keys()


@pytest.mark.parametrize("case", CASES)
def test_only_the_api_has_the_keys_of_webhooks(case: str) -> None:
    setting = "KRATOS_WEBHOOK_API_KEYS_FILE"
    having = {
        process
        for process, manifest in of_kind(case, *WITH_PODS).items()
        if setting in environment_of(manifest)
    }

    assert having == {"api"}


@pytest.mark.parametrize("case", CASES)
def test_only_those_who_ask_the_broker_have_its_url(case: str) -> None:
    pods = of_kind(case, *WITH_PODS)
    having = {name for name in pods if "BROKER_URL_FILE" in environment_of(pods[name])}

    assert having == {"relay", "worker", "console"} & pods.keys()


def test_a_process_can_have_a_database_role_of_its_own_and_the_others_keep_theirs() -> None:
    keys = {}
    for process, manifest in of_kind("everything", *WITH_PODS).items():
        (volume,) = [each for each in pod_of(manifest)["volumes"] if each["name"] == "secrets"]
        keys[process] = {
            item["path"]: source["secret"]["items"][0]["key"]
            for source in volume["projected"]["sources"]
            for item in source["secret"]["items"]
        }["database_url"]

    own = {each: f"{each}_url" for each in ("api", "relay", "console")}
    assert keys == {
        **own,
        "migrate": "owner_url",
        "worker": "worker_url",
        "reconcile": "worker_url",
    }


def test_what_a_process_sets_wins_for_it_alone() -> None:
    pods = of_kind("everything", "Deployment")

    assert environment_of(pods["worker"])["WORKER_THREADS"] == "4"
    assert environment_of(pods["relay"])["WORKER_THREADS"] == "8"
    assert pod_of(pods["api"])["nodeSelector"] == {
        "kubernetes.io/arch": "arm64",
        "example.org/pool": "front",
    }
    assert pod_of(pods["relay"])["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
    worker = pods["worker"]["spec"]["template"]["metadata"]
    assert worker["annotations"] == {"example.org/log": "text"}
    added = {"example.org/team": "identity", "example.org/identity": "federated"}
    assert added.items() <= worker["labels"].items()
    # A label of ours stays ours, because others select by it.
    assert worker["labels"]["app.kubernetes.io/component"] == "worker"


@pytest.mark.parametrize("manifest", cases_of("Deployment"))
def test_a_pod_is_probed_where_processes_say_how_they_are(manifest: Manifest) -> None:
    container, environment = container_of(manifest), environment_of(manifest)
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    routes = Health(process_of(manifest), Observer()).routes
    live, ready = container["livenessProbe"], container["readinessProbe"]

    assert environment["METRICS_PORT"] == ports["metrics"]
    assert environment["METRICS_HOST"] == "0.0.0.0"
    assert live["httpGet"] == {"path": "/health/live", "port": "metrics"}
    assert ready["httpGet"]["path"] == "/health/ready"
    assert {live["httpGet"]["path"], ready["httpGet"]["path"]} == routes.keys()
    assert ready["httpGet"]["port"] in ports
    assert "startupProbe" not in container
    if "http" in ports:
        words = container["args"]
        assert words[words.index("--port") + 1] == ports["http"]


@pytest.mark.parametrize("case", CASES)
def test_the_api_is_sent_calls_for_as_long_as_it_can_hold_them_without_a_database(
    case: str,
) -> None:
    probe = container_of(of_kind(case, "Deployment")["api"])["readinessProbe"]

    assert probe["httpGet"]["port"] == "http"
    assert probe["periodSeconds"] * probe["failureThreshold"] > KRATOS_ATTEMPTS_SECONDS


@pytest.mark.parametrize("manifest", cases_of("Deployment"))
def test_what_a_service_sends_to_goes_on_until_every_node_knows(manifest: Manifest) -> None:
    assert (pause_of(manifest) > 0) == (process_of(manifest) in {"api", "console"})


@pytest.mark.parametrize("manifest", cases_of("Deployment"))
def test_a_pod_that_is_replaced_is_replaced_without_a_gap_where_there_may_be_two(
    manifest: Manifest,
) -> None:
    strategy = manifest["spec"]["strategy"]

    if process_of(manifest) in {"reconcile", "console"}:
        assert strategy == {"type": "Recreate"}
        assert manifest["spec"]["replicas"] == 1
    else:
        assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("manifest", cases_of(*WITH_PODS))
def test_kubernetes_neither_sets_our_variables_nor_leaves_dead_processes(
    manifest: Manifest,
) -> None:
    assert pod_of(manifest)["enableServiceLinks"] is False
    assert pod_of(manifest)["shareProcessNamespace"] is True


@pytest.mark.parametrize("case", CASES)
def test_each_service_budget_and_policy_selects_the_pods_of_its_process(case: str) -> None:
    deployments, pods = of_kind(case, "Deployment"), of_kind(case, *WITH_PODS)
    selecting = {
        "Service": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        "Deployment": lambda spec: spec["selector"]["matchLabels"],
    }
    for kind, selector in selecting.items():
        for process, manifest in of_kind(case, kind).items():
            chosen = [name for name in pods if selects(selector(manifest["spec"]), pods[name])]
            assert chosen == [process]

    assert of_kind(case, "Service").keys() == {"api", "console"} & deployments.keys()
    assert of_kind(case, "PodDisruptionBudget").keys() == deployments.keys()
    assert of_kind(case, "NetworkPolicy").keys() == pods.keys()


@pytest.mark.parametrize("manifest", cases_of("Service"))
def test_a_service_is_inside_the_cluster_and_leads_to_a_port_that_exists(
    manifest: Manifest,
) -> None:
    (port,) = manifest["spec"]["ports"]

    assert "type" not in manifest["spec"]
    assert port["targetPort"] == "http"
    assert port["port"] == {"api": 8000, "console": 8100}[process_of(manifest)]


@pytest.mark.parametrize("manifest", cases_of("NetworkPolicy"))
def test_only_who_has_to_reaches_a_process(manifest: Manifest) -> None:
    opened = [
        port["port"] for rule in manifest["spec"].get("ingress", ()) for port in rule["ports"]
    ]
    peers = [rule["from"] for rule in manifest["spec"].get("ingress", ())]
    process = process_of(manifest)

    serving = ["http", "metrics"] if process in {"api", "console"} else ["metrics"]
    assert opened == ([] if process == "migrate" else serving)
    assert all(peers)
    assert "Ingress" in manifest["spec"]["policyTypes"]


def test_a_process_reaches_only_what_it_asks_once_that_is_wanted() -> None:
    reached = {}
    for process, manifest in of_kind("everything", "NetworkPolicy").items():
        assert "Egress" in manifest["spec"]["policyTypes"]
        ports = {port["port"] for rule in manifest["spec"]["egress"] for port in rule["ports"]}
        reached[process] = ports - {53}

    ledger, broker, kratos = {5432, 6432}, {6379}, {4433, 4434}
    assert reached == {
        "api": ledger,
        "migrate": ledger,
        "relay": ledger | broker,
        "reconcile": ledger | kratos,
        "console": ledger | broker | kratos | {443},
        "worker": ledger | broker | kratos | {587},
    }
    for manifest in of_kind("default", "NetworkPolicy").values():
        assert manifest["spec"]["policyTypes"] == ["Ingress"]


@pytest.mark.parametrize("case", CASES)
def test_the_schema_is_migrated_before_anything_else(case: str) -> None:
    hooks = {
        each["kind"]: each["metadata"]["annotations"]
        for each in all_of(case)
        if "helm.sh/hook" in each["metadata"].get("annotations", {})
    }

    grants = {"ConfigMap"} if case == "everything" else set()
    assert hooks.keys() == {"Job", "NetworkPolicy", *grants}
    assert {each["helm.sh/hook"] for each in hooks.values()} == {"pre-install,pre-upgrade"}
    for needed in hooks.keys() - {"Job"}:
        assert int(hooks[needed]["helm.sh/hook-weight"]) < 0
    job = of_kind(case, "Job")["migrate"]
    # Whatever the pod needs has to be there before the chart's own objects are.
    assert pod_of(job)["serviceAccountName"] == "default"
    assert job["spec"]["backoffLimit"] > 0


def test_what_others_need_too_is_linked_and_not_copied() -> None:
    linked = {path.name: path.resolve() for path in CHART.iterdir() if path.is_symlink()}
    deploy = ROOT / "deploy"

    assert linked == {
        "alerts.yaml": deploy / "monitoring" / "alerts.yaml",
        "dashboard.json": deploy / "monitoring" / "dashboard.json",
        "grants.sql": deploy / "postgres" / "grants.sql",
    }


def test_each_setting_of_a_secret_may_be_a_file() -> None:
    mounted = {
        variable.removesuffix("_FILE").lower()
        for case in CASES
        for manifest in of_kind(case, *WITH_PODS).values()
        for variable in environment_of(manifest)
        if variable.endswith("_FILE")
    }

    assert mounted <= set(FROM_FILES)


def test_what_is_recorded_was_rendered_from_the_chart_as_it_is() -> None:
    assert RENDERED_FROM.read_text().strip() == digest(), "run python -m tests.deploy.chart"
