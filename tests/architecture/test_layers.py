"""The layers: dependencies point inwards, and never in a circle."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.waiting import DEADLINE_SECONDS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
LAYERS = {"domain", "application", "infrastructure", "api", "testing"}
MODULES = {
    ".".join(("kratos_sync", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def test_the_layers_are_exactly_these() -> None:
    found = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert found == LAYERS


def test_every_contract_between_the_layers_is_kept() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    ran = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "0 broken" in ran.stdout


def test_no_module_imports_another_in_a_circle() -> None:
    graph = {name: imported(name, MODULES[name].read_text()) for name in MODULES}
    # A circle raises CycleError, which names it.
    assert set(TopologicalSorter(graph).static_order()) >= MODULES.keys()


def test_a_circle_would_be_found() -> None:
    name = "kratos_sync.domain.identity"
    text = f"from kratos_sync.domain import merging\nimport {name}.x\nfrom {name} import Identity"
    assert imported("kratos_sync.other", text) == {"kratos_sync.domain.merging", name}


def test_only_the_command_line_imports_the_infrastructure() -> None:
    knowing = {
        name
        for name, path in MODULES.items()
        if name.startswith("kratos_sync.api") and "kratos_sync.infrastructure" in path.read_text()
    }
    assert knowing
    assert all(f"{name}.".startswith("kratos_sync.api.cli.") for name in knowing)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_holds(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text()))


def test_no_import_goes_through_the_source_folder() -> None:
    """Imported as `src.…`, a module would exist twice."""
    paths = [
        *MODULES.values(),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
    ]
    texts = [path.read_text() for path in paths if path != Path(__file__)]
    assert not [text for text in texts if "from src" in text or "import src" in text]


def test_every_test_folder_is_a_package() -> None:
    """So that two tests in different folders may have the same file name."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def imported(module: str, text: str) -> set[str]:
    """The modules of the package that a module imports when it is itself imported."""
    names: list[str] = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if name in MODULES else node.module for name in submodules]
    found = {name for each in names if (name := _module_of(each))}
    # A package is imported before its modules, and may import them.
    return {name for name in found if not f"{module}.".startswith(f"{name}.")}


def _module_of(name: str) -> str:
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name
