"""`kratos-sync new`: writes a package with consumers of one's own, to begin with."""

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import click

from kratos_sync.api.cli.output import echo

TEMPLATE: Final = files("kratos_sync.api.cli") / "new_project"
SUFFIX: Final = ".txt"
"""Of the template's files: no tool takes them for files of this project."""


@click.command()
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder; by default the name with hyphens, in the current one.",
)
def new(name: str, into: Path | None) -> None:
    """Write a package NAME with two consumers, their tests and a Dockerfile.

    NAME is that of a Python package, such as acme_sync. No existing file is overwritten.
    """
    if not re.fullmatch("[a-z][a-z0-9_]{0,40}", name) or name in {"kratos_sync", "tests"}:
        raise click.UsageError(f"{name!r} is no name for your package, such as acme_sync.")
    folder = into or Path(name.replace("_", "-"))
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} is not empty.")
    for path, text in _template(TEMPLATE):
        file = folder / _renamed(path, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_renamed(text, name))
    echo(f"Wrote {folder}: its README.md says how to test and run it.")


def _template(folder: Traversable, above: str = "") -> list[tuple[str, str]]:
    """The paths and texts of the template's files."""
    found = []
    for each in sorted(folder.iterdir(), key=lambda each: each.name):
        path = f"{above}{each.name}"
        if each.is_dir():
            found += _template(each, f"{path}/")
        elif path.endswith(SUFFIX):
            found.append((path.removesuffix(SUFFIX), each.read_text()))
    return found


def _renamed(text: str, name: str) -> str:
    words = name.split("_")
    return (
        text.replace("acme_sync", name)
        .replace("acme-sync", "-".join(words))
        .replace("AcmeSync", "".join(map(str.capitalize, words)))
    )
