"""The chart as helm renders it. `python -m tests.deploy.chart` records it for the tests."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.programs import missing
from tests.waiting import DEADLINE_SECONDS

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "helm"
FOLDER: Final = Path(__file__).parent / "helm"
RELEASE: Final = "kratos-sync"
NAMESPACE: Final = "identity"
CASES: Final = ("default", "everything")
"""Each has its values and what is rendered from them."""

KUBERNETES: Final = ("--kube-version", "1.30")
"""Helm 3 that was built from its module takes Kubernetes for 1.20."""
RENDERED_FROM: Final = FOLDER / "rendered-from.sha256"

Manifest = dict[str, Any]


def helm(*arguments: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Run helm, which keeps what it remembers in a folder of the test's."""
    if (program := shutil.which("helm")) is None:
        missing("helm is not installed here (go install helm.sh/helm/v4/cmd/helm@latest)")
    homes = {f"HELM_{kind}_HOME": str(home) for kind in ("CACHE", "CONFIG", "DATA")}
    return subprocess.run(
        [program, *arguments],
        env={**os.environ, **homes},
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )


def rendered(*options: str, home: Path, release: str = RELEASE) -> list[Manifest]:
    """The manifests, without comments, in the order of kinds and names."""
    where = ("--namespace", NAMESPACE, *KUBERNETES)
    made = helm("template", release, str(CHART), *where, *options, home=home)
    assert made.returncode == 0, made.stderr
    return in_order(each for each in yaml.safe_load_all(made.stdout) if each)


def in_order(manifests: Iterable[Manifest]) -> list[Manifest]:
    return sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"]))


def values_of(case: str) -> Path:
    return FOLDER / f"{case}.values.yaml"


def golden(case: str) -> list[Manifest]:
    return list(yaml.safe_load_all((FOLDER / f"{case}.yaml").read_text()))


@cache
def all_of(case: str) -> list[Manifest]:
    """What is recorded, read once."""
    return golden(case)


def of_kind(case: str, *kinds: str) -> dict[str, Manifest]:
    """By the process that each is of."""
    return {
        each["metadata"]["labels"].get("app.kubernetes.io/component", ""): each
        for each in all_of(case)
        if each["kind"] in kinds
    }


def cases_of(*kinds: str) -> list[Any]:
    return [
        pytest.param(manifest, id=f"{case}-{process}")
        for case in CASES
        for process, manifest in of_kind(case, *kinds).items()
    ]


def process_of(manifest: Manifest) -> str:
    return manifest["metadata"]["labels"]["app.kubernetes.io/component"]


def pod_of(manifest: Manifest) -> dict[str, Any]:
    return manifest["spec"]["template"]["spec"]


def container_of(manifest: Manifest) -> dict[str, Any]:
    (container,) = pod_of(manifest)["containers"]
    return container


def environment_of(manifest: Manifest) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container_of(manifest)["env"]}


def pause_of(manifest: Manifest) -> int:
    hooks = container_of(manifest).get("lifecycle", {})
    return hooks["preStop"]["sleep"]["seconds"] if hooks else 0


def selects(selector: dict[str, str], manifest: Manifest) -> bool:
    return selector.items() <= manifest["spec"]["template"]["metadata"]["labels"].items()


def without_copies(manifests: list[Manifest]) -> list[Manifest]:
    """The same without the alerts, the dashboard and the grants, which are files of their own."""
    for manifest in manifests:
        if manifest["kind"] == "PrometheusRule":
            manifest["spec"] = {"groups": []}
        elif manifest["kind"] == "ConfigMap":
            manifest["data"] = dict.fromkeys(manifest["data"], "")
    return manifests


def write_goldens(home: Path) -> None:
    for case in CASES:
        manifests = without_copies(rendered("--values", str(values_of(case)), home=home))
        (FOLDER / f"{case}.yaml").write_text(yaml.safe_dump_all(manifests, width=100))
    RENDERED_FROM.write_text(digest() + "\n")


def digest() -> str:
    """Of all that the goldens are rendered from: where helm is missing, it says if they are old."""
    files = [CHART / "Chart.yaml", CHART / "values.yaml", *sorted((CHART / "templates").iterdir())]
    files += map(values_of, CASES)
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        write_goldens(Path(folder))
