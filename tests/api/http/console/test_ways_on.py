"""Wherever somebody is led, there is a way on: from errors, from forms, from empty lists."""

import re
from html import unescape
from http import HTTPStatus
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from kratos_sync.api.http.console.app import create_console
from kratos_sync.api.http.console.identity import MOST_EVENTS
from kratos_sync.application.ports.operations import How, OperationRequest
from kratos_sync.infrastructure.container import Container
from tests.api.http.console.conftest import Visit
from tests.api.http.console.test_one_source import words
from tests.api.http.console.test_pages import PAGES, ended, sent
from tests.api.http.console.visiting import (
    CANARY,
    SYNC,
    VIEWER,
    SignedIn,
    Visitor,
    fail,
    group_of,
    open_routes,
    shown,
)
from tests.infrastructure.ledger.rows import SOMEBODY, add_event, add_identity

SILENT = text("""
    INSERT INTO kratos_sync.hooks_heard (label, first_at, last_at, calls)
    VALUES ('login', now() - interval '60 d', now() - interval '30 d', 5000)
""")
RUN = text("""
    WITH run AS (
        INSERT INTO kratos_sync.reconciliations
               (started_at, ended_at, outcome, held, identities, known, unseen)
        VALUES (now(), now(), :outcome, 200, 186, 186, 14) RETURNING id)
    INSERT INTO kratos_sync.unseen_identities
    SELECT run.id, held.id FROM run, kratos_sync.kratos_identities AS held
""")
REFUSED = "refused: 14 of 200 are not listed, and at most 10 may go"
ID = f"/identity/{SOMEBODY}"
FORMS = {
    "/consumers/pause": "/",
    "/events/replay": "/events",
    "/kratos/reconcile": "/kratos",
    f"{ID}/data": ID,
    f"{ID}/sync": ID,
}
"""Where a form is sent to, and the page that has it."""


def actions_of(page: str) -> dict[str, str]:
    """What the first page offers about what needs attention: page by name."""
    found = re.findall(r'<a class="button" href="([^"]+)">([^<]+)</a></li>', page)
    return {name: unescape(where) for where, name in found}


def attention_of(page: str) -> str:
    return page.partition('<ul class="attention">')[2].partition("</ul>")[0]


@pytest.mark.parametrize("outcome", [REFUSED, None], ids=["refused", "interrupted"])
def test_no_command_is_named_beside_a_link_to_the_page_that_does_it(
    visitor: Visitor, engine: Engine, outcome: str | None
) -> None:
    add_identity(engine)
    fail(engine)
    with engine.begin() as connection:
        connection.execute(SILENT)
        connection.execute(RUN, {"outcome": outcome})
        if outcome is None:
            connection.execute(text("UPDATE kratos_sync.reconciliations SET ended_at = NULL"))
    page = visitor.get("/").text
    needed = attention_of(page)
    decided = {"Decide about them": "/kratos#deletions"}
    resumed = {"Reconcile": "/kratos"}
    assert actions_of(page) == {
        "Retry or discard": f"/failures?consumer={SYNC}",
        "Check the hooks": "/kratos#hooks",
        **(decided if outcome else resumed),
    }
    assert "<code>" not in needed
    assert 'id="deletions"' in visitor.get("/kratos").text or outcome is None


def test_a_silent_hook_leads_to_the_configuration_that_should_have_it(
    visitor: Visitor, engine: Engine
) -> None:
    leads = '<a href="#flows">'
    assert leads not in visitor.get("/kratos").text
    with engine.begin() as connection:
        connection.execute(SILENT)
    page = visitor.get("/kratos").text
    assert leads in page
    assert 'id="flows"' in page


def test_who_may_not_change_it_is_offered_to_see_it(visit: Visit, engine: Engine) -> None:
    add_identity(engine)
    fail(engine)
    with engine.begin() as connection:
        connection.execute(RUN, {"outcome": REFUSED})
    viewer = visit(VIEWER)
    assert set(actions_of(viewer.get("/").text)) == {"See why", "See which"}


def test_who_may_not_do_it_is_told_which_role_may(visit: Visit, engine: Engine) -> None:
    add_identity(engine)
    event_id = fail(engine)
    with engine.begin() as connection:
        connection.execute(RUN, {"outcome": REFUSED})
    viewer = visit(VIEWER)
    for page, said in {
        group_of(viewer): "To retry or discard them needs the role operator.",
        f"/events/{event_id}": "The payload and the texts of errors need the role privacy.",
        "/kratos": "To delete them all at once needs the roles operator and privacy.",
    }.items():
        assert said in viewer.get(page).text


def test_a_reconciliation_names_all_that_it_compares_not_only_those_listed(
    visitor: Visitor, engine: Engine
) -> None:
    add_identity(engine)
    with engine.begin() as connection:
        connection.execute(RUN, {"outcome": REFUSED})
    assert "Reconcile 200 identities now" in visitor.get("/kratos").text


@pytest.mark.parametrize(("form", "page"), FORMS.items())
def test_a_form_that_is_refused_leads_back_to_its_page(
    visitor: Visitor, engine: Engine, form: str, page: str
) -> None:
    add_identity(engine)
    answer = visitor.post(form, {"reason": " ", "ticket": "t", "consumer": SYNC})
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert f'href="{page}">Open the page again</a>' in answer.text


@pytest.mark.parametrize(("form", "page"), FORMS.items())
def test_the_address_that_a_form_left_in_the_browser_leads_to_its_page(
    visitor: Visitor, form: str, page: str
) -> None:
    answer = visitor.get(form)
    assert (answer.status_code, answer.headers["location"]) == (HTTPStatus.SEE_OTHER, page)


@pytest.mark.parametrize(("form", "page"), FORMS.items())
def test_whose_session_ended_meanwhile_is_led_to_sign_in_and_to_the_page(
    container: Container, form: str, page: str
) -> None:
    with open_routes(container) as routes:
        nobody = Visitor(create_console(SignedIn(None), routes))
        answer = nobody.post(form, {"reason": "a test", "ticket": "t"})
    assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert f'href="{page}">Sign in</a>' in answer.text


def test_a_page_that_is_not_there_is_said_to_be_none(visitor: Visitor) -> None:
    answer = visitor.get("/nowhere")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert "There is no such page." in answer.text


def test_a_persons_data_leads_to_the_earlier_events_too(visitor: Visitor, engine: Engine) -> None:
    add_identity(engine)
    for _ in range(MOST_EVENTS + 1):
        add_event(engine)
    page = visitor.post(f"{ID}/data", {"reason": "she asked"}).text
    assert CANARY in page
    (more,) = re.findall(r'href="([^"]+)">Earlier ones', page)
    assert visitor.get(unescape(more)).status_code == HTTPStatus.OK


def test_who_finds_nobody_by_an_address_is_told_what_to_do(visitor: Visitor) -> None:
    answer = visitor.post("/identity", {"known": "new@example.org"})
    assert answer.status_code == HTTPStatus.OK
    said = words(answer.text)
    assert "Nobody is known by this" in said
    assert "the webhook was missed, enter the one before" in said
    assert "GET /admin/identities?credentials_identifier=…" in said
    assert 'value="new@example.org"' in answer.text


def test_every_page_has_a_title_of_its_own(visitor: Visitor, engine: Engine) -> None:
    add_identity(engine)
    event_id = fail(engine)
    pages = (*PAGES, ID, group_of(visitor), f"/events/{event_id}", "/nowhere")
    titles = [re.findall("<title>(.*)</title>", visitor.get(each).text) for each in pages]
    assert len({title for (title,) in titles}) == len(pages)


def test_an_empty_list_says_whether_there_is_anything_at_all(visitor: Visitor) -> None:
    assert "No event is recorded yet" in visitor.get("/events").text
    assert "None of the events that were searched" in visitor.get("/events?hook=login").text
    assert "Nobody has changed anything yet" in visitor.get("/audit").text
    assert "No operation matches." in visitor.get("/audit?by=cleo").text


def test_a_canary_leads_to_the_others_of_its_group_while_it_is_followed(
    visitor: Visitor, engine: Engine
) -> None:
    for _ in range(2):
        fail(engine)
    fail(engine, shape="of another kind")
    group = group_of(visitor)
    form = {**shown(visitor, group), "ticket": uuid4().hex, "which": "one"}
    operation = sent(visitor, f"{group}/retry", **form)
    assert sent(visitor, f"{group}/retry", **form) == operation
    page = ended(visitor, operation)
    assert f'href="{group}">The others of this group</a>' in page
    assert f'hx-get="{operation}"' in page
    assert "Retry all 1 of" in visitor.get(group).text
    last = {**shown(visitor, group), "which": "one"}
    assert "The others" not in ended(visitor, sent(visitor, f"{group}/retry", **last))
    strange = operation.partition("?")[0] + '?group="><b>/../../evil.example'
    assert "evil" not in visitor.get(strange).text.partition("<main")[2]


def test_a_dead_letter_in_a_story_leads_to_where_it_is_retried(
    visitor: Visitor, engine: Engine
) -> None:
    event_id = fail(engine)
    for page in (ID, f"/events/{event_id}"):
        link = f'<a class="bad" href="/failures?consumer={SYNC}">dead letter</a>'
        assert link in visitor.get(page).text


def test_an_operation_that_failed_says_what_to_do(visitor: Visitor) -> None:
    page = ended(visitor, sent(visitor, "/kratos/reconcile"))
    assert "KRATOS_ADMIN_URL was not set where this was carried out." in page


def test_a_consumer_that_is_paused_can_be_resumed_without_unfolding(visitor: Visitor) -> None:
    folded = '<details id="pauses"><summary>'
    assert folded in visitor.get("/").text
    ended(visitor, sent(visitor, "/consumers/pause", consumer=SYNC))
    assert folded.replace("><s", " open><s") in visitor.get("/").text


def test_what_runs_is_listed_with_its_progress_in_the_audit_trail(
    visitor: Visitor, container: Container
) -> None:
    replay = OperationRequest("replay", "cleo", How.CLI, consumer=SYNC)
    container.operations().begin(replay, uuid4(), 10)
    assert '<progress max="10" value="0"' in visitor.get("/audit?running=yes").text
