"""The image: what is in it, who it runs as, on which processors."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import parse_wheel_filename

from kratos_sync.api.healthcheck import Question, question_of

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (words[0], words[1]) for line in joined.splitlines() if (words := line.split(" ", 1))[1:]
    ]


def said(word: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == word]


def test_everything_that_is_copied_is_here_and_let_through() -> None:
    copied = [
        source
        for rest in said("COPY")
        if not rest.startswith("--from")
        for source in shlex.split(rest)[:-1]
    ]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert {"pyproject.toml", "uv.lock", "src"} <= {*copied}
    assert not [source for source in copied if not (ROOT / source).exists()]
    assert not [source for source in copied if f"!{source}" not in ignored]


def test_nothing_that_is_not_copied_reaches_the_builder() -> None:
    ignored = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    copied = {s for rest in said("COPY") for s in shlex.split(rest)[:-1]}

    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} <= copied


def test_what_the_package_is_built_from_is_copied() -> None:
    copied = {s for rest in said("COPY") for s in shlex.split(rest)[:-1]}

    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= copied


def uv_commands() -> list[list[str]]:
    return [
        shlex.split(command)
        for rest in said("RUN")
        for command in rest.split("&&")
        if command.split()[0] == "uv"
    ]


def extras(command: list[str]) -> list[str]:
    return [after for before, after in pairwise(command) if before == "--extra"]


def test_dependencies_come_from_the_lock_and_without_the_tools() -> None:
    installs = [command for command in uv_commands() if command[1] == "sync"]

    assert installs
    for install in installs:
        assert {"--locked", "--no-dev", "--no-editable"} <= {*install}


def test_uv_is_the_same_in_the_image_and_in_the_makefile() -> None:
    pinned = re.compile(r"uv==(\d+\.\d+\.\d+)")

    assert pinned.findall(DOCKERFILE) == pinned.findall(MAKEFILE)
    assert len(pinned.findall(DOCKERFILE)) == 1


def test_both_stages_start_from_the_same_pinned_python_which_ci_tests() -> None:
    images = {rest.split()[0] for rest in said("FROM")}
    (image,) = images
    version = re.fullmatch(r"python:(\d+\.\d+)\.\d+-slim-[a-z]+@sha256:[0-9a-f]{64}", image)

    assert version
    assert (
        version.group(1)
        in yaml.safe_load(WORKFLOW)["jobs"]["check"]["strategy"]["matrix"]["python"]
    )


def test_the_image_ends_as_a_numbered_user_who_is_not_root() -> None:
    last_stage = instructions()[
        max(i for i, (word, _) in enumerate(instructions()) if word == "FROM") :
    ]
    (user,) = [rest for word, rest in last_stage if word == "USER"]

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert {user} == {
        service["user"]
        for service in SERVICES.values()
        if service["image"].startswith("kratos-identity-sync:")
    }


def test_the_image_runs_the_command_that_the_project_installs() -> None:
    (entrypoint,) = said("ENTRYPOINT")
    (command,) = json.loads(entrypoint)

    assert command in PROJECT["project"]["scripts"]
    assert 'PATH="/app/.venv/bin:$PATH"' in DOCKERFILE


def test_the_image_carries_the_version_and_the_licence_of_the_project() -> None:
    tags = {
        service["image"].partition(":")[2]
        for service in SERVICES.values()
        if service["image"].startswith("kratos-identity-sync:")
    }

    assert tags == {PROJECT["project"]["version"]}
    for label, key in (("licenses", "license"), ("version", "version"), ("title", "name")):
        assert f'org.opencontainers.image.{label}="{PROJECT["project"][key]}"' in DOCKERFILE


def test_the_image_leaves_no_cache_behind() -> None:
    assert "UV_NO_CACHE=1" in DOCKERFILE
    assert all("--no-cache-dir" in rest for rest in said("RUN") if "pip install" in rest)


def test_a_container_says_how_it_is_whatever_runs_in_it() -> None:
    (check,) = said("HEALTHCHECK")
    program, called, *words = json.loads(check.partition("CMD ")[2])

    assert (program, called) == ("kratos-sync", "healthcheck")
    assert question_of(words) == Question()
    assert re.search(
        r"^ENV .*METRICS_PORT=\d+$", "\n".join(map(" ".join, instructions())), re.MULTILINE
    )


def test_nothing_needs_a_shell_once_the_image_is_built() -> None:
    health = said("HEALTHCHECK")[0].partition("CMD ")[2]

    for words in (*said("ENTRYPOINT"), *said("CMD"), health):
        assert isinstance(json.loads(words), list)


@pytest.mark.parametrize("path", ["Dockerfile", "src/api/cli/new_project/Dockerfile.txt"])
def test_hadolint_finds_nothing_wrong(path: str) -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", ROOT / path],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_image_is_built_the_same_way_for_every_processor() -> None:
    assert not re.search("amd64|x86|arm64|aarch64|TARGET|--platform", DOCKERFILE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the image lists as installed, made as in its build."""
    (command,) = [command for command in uv_commands() if command[1] == "export"]
    file = tmp_path_factory.mktemp("image") / command[-1]
    subprocess.run(
        [Path(sys.executable).with_name("uv"), *command[1:-1], file], cwd=ROOT, check=True
    )
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_what_is_installed_is_listed_as_cyclonedx(installed: dict[str, Any]) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(json.dumps(installed)) is None
    purls = {each.get("purl") for each in installed["components"]}
    locked = {each["name"]: each["version"] for each in LOCK["package"]}
    for name in ("psycopg", "starlette", "dramatiq", "sentry-sdk", "opentelemetry-sdk"):
        assert f"pkg:pypi/{name}@{locked[name]}" in purls
    assert "pytest" not in str(purls)


def test_the_list_is_of_what_the_image_installs_and_made_by_make_too() -> None:
    (export,) = [command for command in uv_commands() if command[1] == "export"]
    in_makefile = re.search(r"\$\(UV\) (export .*) --output-file", MAKEFILE)

    for command in uv_commands():
        assert extras(command) == extras(export)
    assert in_makefile
    assert {*shlex.split(in_makefile.group(1))} == {*export[1:-2]}
    assert f"COPY --from=build /app/{export[-1]} /app/{export[-1]}\n" in DOCKERFILE


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
def test_whatever_is_installed_is_there_for_both_processors_without_a_compiler(
    processor: str, installed: dict[str, Any]
) -> None:
    (version,) = {re.findall(r"python:3\.(\d+)", rest)[0] for rest in said("FROM")}
    # Debian 13 has this glibc.
    platforms = [f"manylinux_2_{minor}_{processor}" for minor in range(17, 42)]
    python = (3, int(version))
    tags = {
        *cpython_tags(python, platforms=platforms),
        *compatible_tags(python, platforms=platforms),
    }
    wheels = {
        (each["name"], each["version"]): [
            wheel["url"].rsplit("/", 1)[1] for wheel in each["wheels"]
        ]
        for each in LOCK["package"]
        if "wheels" in each
    }

    missing = [
        each["name"]
        for each in installed["components"]
        if not any(
            parse_wheel_filename(wheel)[3] & tags for wheel in wheels[each["name"], each["version"]]
        )
    ]
    assert missing == []
