"""The tests are right whatever consumers an application subscribes beside the service's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from tests.end_to_end.processes import Processes
from tests.environment import subscriptions

ROOT = Path(__file__).parents[1]
FOREIGN = "tests.foreign_app:app"
A_PART = {
    "the database and processes": [
        "tests/test_environment.py::test_databases_of_tests_have_all_subscriptions",
        "tests/test_environment.py::test_processes_of_tests_run_for_the_application",
        "tests/infrastructure/ledger/test_ordering.py",
        "tests/infrastructure/bus/test_relay.py::test_what_is_due_is_dispatched_in_batches[valkey]",
        "tests/infrastructure/bus/test_actor.py::test_a_message_has_its_events_consumed",
    ],
    "commands": [
        "tests/api/cli/test_status.py::test_the_json_has_the_documented_keys",
        "tests/api/cli/test_sync.py::test_waiting_has_an_end",
    ],
    "the whole service": [
        "tests/end_to_end/test_replays.py::test_the_calls_in_their_order_end_in_the_listing",
        "tests/end_to_end/test_replays.py::test_every_consumer_consumes_each_of_its_events_once",
    ],
    "roles": [
        "tests/deploy/test_roles.py::test_a_webhook_becomes_a_row_with_each_process_in_its_own_role"
    ],
}


def test_databases_of_tests_have_all_subscriptions(engine: Engine) -> None:
    with engine.connect() as connection:
        kept = connection.execute(text("SELECT event, consumer FROM kratos_sync.subscriptions"))
        assert {tuple(row) for row in kept} == set(subscriptions())


def test_processes_of_tests_run_for_the_application(
    tmp_path: Path, database_url: str, broker_url: str
) -> None:
    settings = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    with Processes(tmp_path, settings) as processes:
        code, said = processes.run("status", "--json")
    assert code == 0, said
    known = [each["name"] for each in json.loads(said)["consumers"] if each["known"]]
    assert known == list(subscriptions().consumers)


@pytest.mark.parametrize("part", A_PART)
def test_a_part_of_all_tests_passes_with_three_consumers_more(
    postgres_url: str, broker_url: str, part: str
) -> None:
    """`make test` with that application runs all of them."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *A_PART[part]],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "KRATOS_SYNC_APP": FOREIGN,
            "TEST_DATABASE_URL": postgres_url,
            "TEST_BROKER_URL": broker_url,
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=840,  # only guards against hanging
    )
    assert ran.returncode == 0, ran.stdout[-3_000:]
