"""The house as it is drawn: four rooms, and dependencies that point inwards."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
ROOMS = {"domain", "application", "infrastructure", "api"}
MODULES = sorted(SOURCE.rglob("*.py"))


def test_the_rooms_are_exactly_four() -> None:
    """A stray fifth package would be invisible to the contracts."""
    found = {p.name for p in SOURCE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert found == ROOMS


def test_every_contract_between_the_rooms_is_kept() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "0 broken" in ran.stdout


def test_entry_points_alone_reach_the_infrastructure() -> None:
    knowing = {
        module.relative_to(SOURCE).as_posix()
        for module in (SOURCE / "api").rglob("*.py")
        if any(name.startswith("kratos_sync.infrastructure") for name in _imported(module))
    }
    assert knowing
    assert all(name.startswith("api/cli/") for name in knowing)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_room_says_what_lives_in_it(room: str) -> None:
    assert ast.get_docstring(ast.parse((SOURCE / room / "__init__.py").read_text()))


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.relative_to(SOURCE).as_posix())
def test_every_module_says_what_it_holds(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text())), (
        "a module says in its docstring what it holds"
    )


def test_no_import_goes_through_the_source_folder() -> None:
    assert not [m for m in MODULES if any(name.split(".")[0] == "src" for name in _imported(m))]


def test_every_test_folder_is_a_package() -> None:
    """Without it `tests/domain` would shadow `domain`."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def _imported(module: Path) -> list[str]:
    nodes = ast.walk(ast.parse(module.read_text()))
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names
