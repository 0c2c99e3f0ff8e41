"""The walk of a webhook, as `docs/architecture.md` describes it, names what the code has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
SECTION = "## The walk of a webhook"
STEP = re.compile(r"^\d+\. .*(?:\n(?:   .*)?)*", re.MULTILINE)
QUOTED = re.compile(r"`([^`]+)`")
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def steps(page: str) -> list[list[str]]:
    """What each numbered step of the section quotes in backticks."""
    section = page.partition(f"\n{SECTION}\n")[2].partition("\n## ")[0]
    return [QUOTED.findall(step) for step in STEP.findall(section)]


def paths_of(quoted: list[str], root: Path = ROOT) -> Iterator[Path]:
    """The files of a step; one without a folder is beside the one named before it."""
    folder = root
    for each in quoted:
        if each.endswith(".py") or "/" in each:
            path = root / each if "/" in each else folder / each
            folder = path.parent if each.endswith(".py") else path
            yield path


def names_in(path: Path) -> Iterator[str]:
    """The functions, classes and methods (as `Class.method`) that are defined in a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{each.name}"


def unknown(page: str, root: Path = ROOT) -> list[str]:
    """The files and the names of the walk that the code does not have."""
    walk = steps(page)
    paths = [path for quoted in walk for path in paths_of(quoted, root)]
    missing = [path.relative_to(root).as_posix() for path in paths if not path.exists()]
    files = {
        file
        for path in paths
        if path.exists()
        for file in ([path] if path.is_file() else path.glob("*.py"))
    }
    defined = {name for file in files for name in names_in(file)}
    names = [
        each
        for quoted in walk
        for each in quoted
        if NAME.fullmatch(each) and not each.endswith(".py") and not each.isupper()
    ]
    return missing + [name for name in names if name not in defined]


@pytest.mark.skipif(not PAGE.exists(), reason="there is no page about the architecture")
def test_every_file_and_function_of_the_walk_exists() -> None:
    page = PAGE.read_text()

    assert len(steps(page)) >= 8, "the section has numbered steps, from `POST` to the row"
    assert unknown(page) == []


def test_a_file_or_function_that_is_gone_is_found(tmp_path: Path) -> None:
    (tmp_path / "src/api").mkdir(parents=True)
    (tmp_path / "src/api/app.py").write_text(
        "def create(): ...\nclass Handler:\n    async def handle(self): ...\n"
    )
    (tmp_path / "src/api/beside.py").write_text("class Beside: ...\n")
    step = (
        "1. `POST`: `src/api/app.py`, `create`, then `Handler.handle`;\n   `beside.py` `Beside`.\n"
    )
    page = f"# Page\n\n{SECTION}\n\nWords of `no_file.py`.\n\n{step}\n## Next\n\n1. `other.py`\n"

    assert unknown(page, tmp_path) == []
    broken = page.replace("beside.py", "gone.py").replace("`create`", "`make`")
    assert unknown(broken, tmp_path) == ["src/api/gone.py", "make", "Beside"]
    assert unknown(page.replace("Handler.handle", "Handler.answer"), tmp_path) == ["Handler.answer"]
