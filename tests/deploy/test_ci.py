import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from tests.programs import REQUIRED

ROOT = Path(__file__).parents[2]
WORKFLOW_PATH = ROOT / ".github/workflows/ci.yml"
WORKFLOW = yaml.safe_load(WORKFLOW_PATH.read_text())
STEPS = WORKFLOW["jobs"]["check"]["steps"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_workflow_is_one_that_github_accepts() -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.github-workflows", str(WORKFLOW_PATH)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout


def test_ci_runs_one_script_of_the_repository() -> None:
    assert STEPS[-1] == {"run": "bash .ci/run"}
    assert (ROOT / ".ci/run").is_file()


def test_the_workflow_installs_every_server_and_no_test_may_miss_one() -> None:
    door = (ROOT / ".ci/run").read_text()
    installed = set(re.findall(r"\[[\w/-]+\]=([\w-]+)", door))

    assert WORKFLOW["jobs"]["check"]["env"] == {REQUIRED: "1"}
    assert f"${{{REQUIRED}:-}}" in door
    assert f"{REQUIRED}=" not in door
    assert installed == {
        *("rabbitmq-server", "prometheus", "chromium", "haproxy", "redis-server", "pgbouncer")
    }


def test_ci_installs_what_the_lock_says() -> None:
    door = (ROOT / ".ci/run").read_text()
    syncs = [line for line in (ROOT / "Makefile").read_text().splitlines() if " sync " in line]

    assert "make check" in door
    assert syncs
    assert all("--locked" in sync for sync in syncs)


def test_ci_tries_every_python_that_the_project_says_it_runs_on() -> None:
    said = [
        classifier.rpartition(" ")[2]
        for classifier in PROJECT["project"]["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", classifier)
    ]

    assert WORKFLOW["jobs"]["check"]["strategy"]["matrix"]["python"] == said


def test_ci_may_read_and_nothing_else() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not [job for job in WORKFLOW["jobs"].values() if "permissions" in job]


def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it() -> None:
    actions = [step["uses"] for step in STEPS if "uses" in step]
    written = re.findall(r"uses: (.*)", WORKFLOW_PATH.read_text())

    assert actions
    assert len(written) == len(actions)
    pinned = re.compile(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert all(pinned.fullmatch(action) for action in written)


def test_a_run_ends_and_a_newer_one_replaces_it() -> None:
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is True
    assert all(job["timeout-minutes"] <= 30 for job in WORKFLOW["jobs"].values())


def test_the_hooks_before_a_commit_run_the_tools_of_the_lock() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    tools = {
        re.split("[^a-z-]", tool)[0]
        for tool in PROJECT["dependency-groups"]["dev"]
        if isinstance(tool, str)
    }
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]

    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert {hook["language"] for hook in hooks} == {"system"}
    assert [hook["id"] for hook in hooks] == ["ruff-format", "ruff-check", "mypy"]
    for hook in hooks:
        tool = re.match(r"\.venv/bin/([a-z-]+)\b", hook["entry"])
        assert tool
        assert tool.group(1) in tools
