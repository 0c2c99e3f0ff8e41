import json
import re
import shlex
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()


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


def test_dependencies_come_from_the_lock_and_without_the_tools() -> None:
    installs = [rest for rest in said("RUN") if rest.startswith("uv ")]

    assert installs
    for install in installs:
        assert install.startswith("uv sync ")
        assert {"--locked", "--no-dev", "--no-editable"} <= {*install.split()}


def test_uv_is_the_same_in_the_image_and_in_the_makefile() -> None:
    pinned = re.compile(r"uv==(\d+\.\d+\.\d+)")

    assert pinned.findall(DOCKERFILE) == pinned.findall((ROOT / "Makefile").read_text())
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
    assert f'org.opencontainers.image.licenses="{PROJECT["project"]["license"]}"' in DOCKERFILE


def test_the_image_leaves_the_health_check_to_compose_and_no_cache_behind() -> None:
    assert not said("HEALTHCHECK")
    assert "UV_NO_CACHE=1" in DOCKERFILE
    assert all("--no-cache-dir" in rest for rest in said("RUN") if "pip install" in rest)
