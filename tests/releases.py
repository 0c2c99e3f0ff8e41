"""Other releases than this one: the one before its newest revision, and the next.

Each is a folder with the package in it, which PYTHONPATH puts before this one. Its processes use
the environment of the tests, unless it has one of its own.
"""

import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kratos_sync.infrastructure.migrations import newest_revision
from tests.programs import installed_program, missing

ROOT: Final = Path(__file__).parents[1]
VERSIONS: Final = Path("src", "infrastructure", "migrations", "versions")
ADDED: Final = ("log", "--diff-filter=A", "--no-renames", "--format=%H", "-1", "--")
GIT_SECONDS: Final = 60
SYNC_SECONDS: Final = 600

NEXT_REVISION: Final = '''
from alembic import op

from kratos_sync.infrastructure.migrations import ConcurrentIndex

revision, down_revision = "{revision}", "{before}"
INDEXES = (
    ConcurrentIndex("events_recorded_at_id", "events (recorded_at, name, id)"),
    ConcurrentIndex(
        "deliveries_never_attempted", "deliveries (consumer) WHERE attempts = 0"
    ),
)


def upgrade():
    op.execute("""
        ALTER TABLE kratos_sync.deliveries ADD COLUMN next_release text;
        ALTER TABLE kratos_sync.events ADD COLUMN next_release text NOT NULL DEFAULT 'none';
        DROP INDEX kratos_sync.events_recorded_at;
        ALTER INDEX kratos_sync.events_recorded_at_id RENAME TO events_recorded_at;
        ALTER TABLE kratos_sync.events SET (autovacuum_vacuum_scale_factor = 0.04);
    """)
'''
"""Columns of big tables, and an index of one in place of another."""


def add_next_revision(folder: Path) -> str:
    """Write a revision after the newest, and give its id."""
    before = newest_revision()
    revision = f"{int(before) + 1:04}"
    text = NEXT_REVISION.format(revision=revision, before=before)
    (folder / f"{revision}_next_release.py").write_text(text)
    return revision


@dataclass(frozen=True)
class Release:
    """A release, by the newest revision that it knows."""

    revision: str
    folder: Path
    python: Path | None = None
    """Of its own environment, if it has one."""

    @property
    def program(self) -> list[str]:
        """Its `kratos-sync`."""
        entry = "from kratos_sync.api.cli import main; main()"
        return [str(self.python or sys.executable), "-c", entry]

    @property
    def settings(self) -> dict[str, str]:
        """What its processes need in their environment; they keep what they compiled."""
        return {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": ""}


def previous_release(folder: Path, *, own_environment: bool) -> Release:
    """The last commit before this release's newest revision was added; skips where git has none.

    In its own environment it uses the packages that its lock names, which are downloaded.
    """
    (newest,) = (ROOT / VERSIONS).glob(f"{newest_revision()}_*.py")
    added = _git(*ADDED, VERSIONS / newest.name)
    commit = f"{added}^" if added else "HEAD"
    archive = folder / "release.tar"
    folder.mkdir()
    _git("archive", f"--output={archive}", commit)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    archive.unlink()
    revision = max(path.name[:4] for path in (folder / VERSIONS).glob("[0-9]*.py"))
    assert revision < newest_revision()
    python = _own_environment(folder) if own_environment else None
    return Release(revision, folder, python)


def next_release(folder: Path) -> Release:
    """This release, with one revision more."""
    shutil.copytree(ROOT / "src", folder / "src")
    (folder / "kratos_sync").symlink_to("src")
    return Release(add_next_revision(folder / VERSIONS), folder)


def _git(*words: str | Path) -> str:
    installed_program("git", "git")
    done = subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=GIT_SECONDS, check=False
    )
    if done.returncode:
        said = " ".join(done.stderr.split())
        missing(f"git has no previous release (a shallow clone, or an archive): {said}")
    return done.stdout.strip()


def _own_environment(folder: Path) -> Path:
    uv = ROOT / ".venv" / "bin" / "uv"
    subprocess.run(
        [uv, "sync", "--locked", "--no-dev", "--quiet"],
        cwd=folder,
        check=True,
        timeout=SYNC_SECONDS,
    )
    return folder / ".venv" / "bin" / "python"
