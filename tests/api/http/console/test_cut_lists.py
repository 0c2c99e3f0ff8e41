"""Lists that end before all is shown say so."""

import csv
import io
import re
from http import HTTPStatus
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from kratos_sync.api.http.console import audit
from kratos_sync.api.http.console.identity import MOST_FOUND
from kratos_sync.application.drift import MOST_PAST
from kratos_sync.application.ports.operations import How, OperationRequest
from kratos_sync.infrastructure.container import Container
from tests.api.cli.invoking import kratos_sync
from tests.api.http.console.visiting import Visitor
from tests.infrastructure.ledger.rows import add_identity

ADD = """
    INSERT INTO kratos_sync.reconciliations (held, ended_at, outcome)
    VALUES (1, now(), 'completed')
"""


def test_an_export_that_is_cut_says_so_and_where_the_rest_is(
    visitor: Visitor, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "STEP", 2)
    monkeypatch.setattr(audit, "MOST_EXPORTED", 2)
    operations = container.operations()
    numbers = [
        operations.begin(OperationRequest("purge", by, How.CLI), uuid4())
        for by in ("ada", "cleo", "ada", "ada", "ada")
    ]
    exported, path = [], "/audit.csv?by=ada"
    for _ in range(9):
        _, *rows = csv.reader(io.StringIO(visitor.get(path).text))
        exported += [int(row[0]) for row in rows if row[0].isdecimal()]
        cut = re.fullmatch(r"cut after 2 operations; the rest is at (\S+)", rows[-1][0])
        if cut is None:
            break
        path = cut[1]
    assert exported == [each for each in reversed(numbers) if each != numbers[1]]


@pytest.mark.parametrize("more", [0, 1])
def test_more_identities_than_are_shown_are_said_to_be_more(
    visitor: Visitor, engine: Engine, more: int
) -> None:
    for _ in range(MOST_FOUND + more):
        add_identity(engine, identity_id=uuid4())
    with engine.begin() as connection:
        connection.execute(text("UPDATE kratos_sync.kratos_identities SET external_id = 'shared'"))
    page = visitor.post("/identity", {"known": "shared"}).text
    assert len(re.findall(r'<li><a class="id" href="/identity/', page)) == MOST_FOUND
    assert ("More than 20 identities" in page) is bool(more)


def test_all_reconciliations_are_paged_through(visitor: Visitor, engine: Engine) -> None:
    number = 2 * MOST_PAST
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO kratos_sync.reconciliations"
                " (started_at, ended_at, outcome, held, identities)"
                " SELECT now() - number * interval '1 h', now(), 'completed', 1, 7000 + number"
                " FROM generate_series(:number, 1, -1) AS number"
            ),
            {"number": number},
        )
    path, seen, pages = "/kratos", [], 0
    while path:
        page = visitor.get(path).text
        seen += [int(each.replace(",", "")) for each in re.findall(r">(7,0\d\d)</td>", page)]
        found = re.search(r'<a href="([^"#]+)#reconciliations">Older</a>', page)
        path, pages = found[1] if found else "", pages + 1
    assert seen == [7_001 + each for each in range(number)]
    assert pages == 2
    assert visitor.get("/kratos?before=yesterday").status_code == HTTPStatus.BAD_REQUEST


def test_older_reconciliations_are_said_to_be_elsewhere(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    said = "kratos_sync.reconciliations"
    for _ in range(MOST_PAST):
        assert said not in kratos_sync("status", "--drift").stdout
        with engine.begin() as connection:
            connection.execute(text(ADD))
    assert said in kratos_sync("status", "--drift").stdout
