"""The wheel and the sdist: one import name, beside whatever packages an application has."""

import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.waiting import DEADLINE_SECONDS

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))
APPLICATION = {
    "domain/__init__.py": "OWNER = 'acme'",
    "api/__init__.py": "OWNER = 'acme'",
    "acme.py": """
from datetime import UTC, datetime
from uuid import UUID

import api
import domain
from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import IdentityRegistered

assert (domain.OWNER, api.OWNER) == ("acme", "acme")


class Welcome(Consumer[IdentityRegistered]):
    name = "Welcome"

    def __init__(self) -> None:
        self.welcomed: list[str] = []

    def consume(self, event: IdentityRegistered) -> None:
        self.welcomed.append(str(event.traits["email"]))


welcome = Welcome()
now = datetime(2026, 1, 1, tzinfo=UTC)
payload = {"identity_id": str(UUID(int=1)), "version": 1, "traits": {"email": "ada@example.org"}}
welcome.consume(IdentityRegistered.from_json(UUID(int=2), now, payload))
print(*welcome.welcomed)
""",
}


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=5 * DEADLINE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributions")
    run(UV, "build", "--quiet", "--out-dir", str(folder), str(ROOT))
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (wheel,) = distributions.glob("*.whl")
    return wheel


def test_the_wheel_holds_one_typed_package(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}

    assert packages == {"kratos_sync"}
    assert "kratos_sync/py.typed" in names
    assert len(names) == len(set(names))


def test_the_sdist_holds_the_same_modules_once(distributions: Path, wheel: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = [name.partition("/")[2] for name in archive.getnames()]
    folders = {name.split("/")[0] for name in inside if "/" in name}

    assert folders == {"kratos_sync"}
    assert sorted(name for name in inside if "/" in name) == sorted(
        name for name in ZipFile(wheel).namelist() if name.startswith("kratos_sync/")
    )


def test_it_runs_beside_an_application_with_packages_of_the_same_names(
    wheel: Path, tmp_path: Path
) -> None:
    for name, text in APPLICATION.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    run(UV, "venv", "--quiet", "--python", sys.executable, str(tmp_path / ".venv"))
    python = str(tmp_path / ".venv/bin/python")
    locked = run(
        UV, "export", "--quiet", "--frozen", "--no-dev", "--no-hashes", "--no-emit-project"
    )
    (tmp_path / "locked.txt").write_text(locked)
    run(
        UV,
        "pip",
        "install",
        "--quiet",
        "--python",
        python,
        "-c",
        "locked.txt",
        str(wheel),
        cwd=tmp_path,
    )

    assert "Usage: kratos-sync" in run(
        str(tmp_path / ".venv/bin/kratos-sync"), "--help", cwd=tmp_path
    )
    assert run(python, "acme.py", cwd=tmp_path) == "ada@example.org\n"
