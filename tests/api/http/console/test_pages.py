"""The pages on a real ledger: what they show, to whom, and what their forms change."""

import json
import re
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from kratos_sync.api.http.console.access import Operator
from kratos_sync.api.http.console.app import create_console
from kratos_sync.api.http.console.security import POLICY
from kratos_sync.application.errors import shape_of
from kratos_sync.application.ports.operations import (
    LONGEST_REASON,
    How,
    OperationFilter,
    OperationRequest,
)
from kratos_sync.domain.id_range import IdRange
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.settings import Settings
from tests.api.http.client import ADA, recorded_webhooks
from tests.api.http.console.conftest import Visit
from tests.api.http.console.visiting import (
    CANARY,
    EVERYTHING,
    OPERATOR,
    PRIVACY,
    SYNC,
    VIEWER,
    SignedIn,
    Visitor,
    fail,
    group_of,
    open_routes,
    shown,
)
from tests.infrastructure.ledger.rows import (
    SOMEBODY,
    add_event,
    add_identity,
    log_attempt,
)
from tests.ports import free_port
from tests.waiting import until

PAGES = ["/", "/failures", "/identity", "/events", "/kratos", "/audit"]


def sent(visitor: Visitor, path: str, **form: str) -> str:
    """Send a form with a reason and a ticket; the page of the operation that follows."""
    answer = visitor.post(path, {"reason": "a test", "ticket": uuid4().hex, **form})
    assert answer.status_code == HTTPStatus.SEE_OTHER, answer.text
    return answer.headers["location"]


def ended(visitor: Visitor, operation: str) -> str:
    """The page of an operation once it has ended."""
    return until(lambda: None if "running" in (page := visitor.get(operation).text) else page)


def one(engine: Engine, statement: str) -> object:
    with engine.connect() as connection:
        return connection.execute(text(statement)).scalar_one()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("operator", [VIEWER, OPERATOR, PRIVACY], ids=lambda each: each.name)
def test_a_page_shows_no_personal_data(
    visit: Visit, engine: Engine, path: str, operator: Operator
) -> None:
    add_identity(engine)
    fail(engine)
    answer = visit(operator).get(path)
    assert answer.status_code == HTTPStatus.OK
    assert CANARY not in answer.text
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    "message",
    [
        "no customer lovelace@example.org",
        "no plan for 'lovelace'",
        "user ada.lovelace not found",
        "https://crm.example/people/lovelace returned 404",
        "nobody is called LOVELACE",
        "nobody is called Lovelace",
    ],
)
def test_a_viewer_sees_nobody_in_the_shape_of_a_message(
    visit: Visit, engine: Engine, message: str
) -> None:
    event_id = fail(engine, f"ValueError: {message}", shape_of(ValueError(message)))
    viewer = visit(VIEWER)
    for path in ("/", "/failures", group_of(viewer), f"/events/{event_id}"):
        assert "lovelace" not in viewer.get(path).text.lower()


def test_an_identity_of_another_deployment_is_refused_in_a_sentence(
    container: Container, engine: Engine
) -> None:
    add_identity(engine)
    of_others = {"identity_ids": IdRange.parse("ffffffff")}
    container.settings.override(container.settings().model_copy(update=of_others))
    with open_routes(container) as routes:
        visitor = Visitor(create_console(SignedIn(EVERYTHING), routes))
        for action in ("sync", "delete"):
            form = {"reason": "a test", "ticket": uuid4().hex}
            answer = visitor.post(f"/identity/{SOMEBODY}/{action}", form)
            assert answer.status_code == HTTPStatus.BAD_REQUEST
            assert "another deployment holds this identity" in answer.text
    assert one(engine, "SELECT count(*) FROM kratos_sync.operations") == 0


def test_the_first_page_names_what_needs_attention_and_leads_to_it(
    visitor: Visitor, engine: Engine
) -> None:
    fail(engine)
    page = visitor.get("/").text
    assert f"{SYNC} has 1 dead letter" in page
    assert f'href="/failures?consumer={SYNC}">Retry or discard</a>' in page
    assert "kratos-sync failed list" not in page


def test_an_identity_is_found_by_id_external_id_and_address(
    visitor: Visitor, engine: Engine
) -> None:
    add_identity(engine)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE kratos_sync.kratos_identities SET external_id = 'customer-7',"
                """ verifiable_addresses = '[{"value": "dalia@example.org"}]',"""
                """ recovery_addresses = '[{"value": "+4912345"}]'"""
            )
        )
    for known in (str(SOMEBODY), "customer-7", CANARY, CANARY.upper(), "+4912345"):
        answer = visitor.post("/identity", {"known": known})
        assert answer.headers.get("location") == f"/identity/{SOMEBODY}", known
    for unknown in ("dalia", "example.org", "%", str(uuid4()), "' OR true --"):
        assert "Nobody is known by this" in visitor.post("/identity", {"known": unknown}).text


def test_the_story_of_an_identity_names_hook_attempts_and_errors_types(
    visitor: Visitor, engine: Engine
) -> None:
    add_identity(engine)
    fail(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE kratos_sync.events SET hook = 'settings'"))
    page = visitor.get(f"/identity/{SOMEBODY}").text
    assert "by the hook <strong>settings</strong>" in page
    assert "dead letter" in page
    assert "<code>ValueError</code>" in page
    assert CANARY not in page


def test_an_unknown_identity_has_no_page(visitor: Visitor) -> None:
    assert visitor.get(f"/identity/{uuid4()}").status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("path", [f"/identity/{SOMEBODY}/data", "/events/{event}/data"])
def test_personal_data_is_shown_for_a_reason_that_is_recorded(
    visit: Visit, engine: Engine, path: str
) -> None:
    add_identity(engine)
    path = path.format(event=fail(engine))
    privacy = visit(PRIVACY)

    without = privacy.post(path, {"reason": " "})
    assert (without.status_code, CANARY in without.text) == (HTTPStatus.BAD_REQUEST, False)
    page = privacy.post(path, {"reason": "she asked"}).text
    assert CANARY in page
    assert "<script>alert" not in page

    audit = visit(VIEWER).get("/audit").text
    assert "view" in audit
    assert "she asked" in audit
    assert "petra" in audit
    assert CANARY not in audit


def test_one_dead_letter_is_retried_to_see_whether_it_succeeds(
    visitor: Visitor, engine: Engine
) -> None:
    for _ in range(3):
        fail(engine)
    done = ended(
        visitor,
        sent(visitor, f"{(page := group_of(visitor))}/retry", **shown(visitor, page), which="one"),
    )
    assert "retry by ada" in done
    assert "1 of 1 done" in done
    assert one(engine, "SELECT count(*) FROM kratos_sync.deliveries WHERE failed_at IS NULL") == 1


def test_a_retry_of_one_is_followed_until_its_consumer_is_done(
    visitor: Visitor, engine: Engine
) -> None:
    event_id = fail(engine)
    place = sent(
        visitor, f"{(page := group_of(visitor))}/retry", **shown(visitor, page), which="one"
    )
    pending = ended(visitor, place)
    assert f'href="/events/{event_id}"' in pending
    assert ">pending</span> and not tried yet: due since" in pending
    assert "hx-trigger" in pending
    assert f'href="/failures?consumer={SYNC}"' in pending
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM kratos_sync.deliveries"))
    log_attempt(engine, SYNC, event_id, number=13)
    settled = visitor.get(place).text
    assert '<span class="good">succeeded</span> at attempt 13' in settled
    assert "hx-trigger" not in settled


def test_the_first_page_says_when_the_copy_was_last_right(visitor: Visitor, engine: Engine) -> None:
    assert "Our copy was never compared with Kratos." in visitor.get("/").text
    run = (
        "INSERT INTO kratos_sync.reconciliations"
        " (started_at, ended_at, outcome, held, identities, known, unseen)"
        " VALUES (:at, :at, :outcome, 1, 1, 1, 14)"
    )
    for at, outcome, sentences in [
        (
            "2026-11-29T09:00Z",
            "refused: too many",
            ["was refused; 14 identities held here were not listed."],
        ),
        ("2026-11-29T10:00Z", "completed", ["Copy equals Kratos as of <time datetime="]),
        (
            "2026-11-29T11:00Z",
            "refused: too many",
            ["Copy may differ from", "It was equal as of"],
        ),
    ]:
        with engine.begin() as connection:
            connection.execute(text(run), {"at": at, "outcome": outcome})
        page = visitor.get("/").text
        assert [sentence for sentence in sentences if sentence not in page] == []
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE kratos_sync.reconciliations SET outcome = 'completed', unreadable = 3")
        )
    assert "0 repaired then, 3 could not be read." in visitor.get("/").text


def test_all_dead_letters_of_a_group_are_retried_and_no_others(
    visitor: Visitor, engine: Engine
) -> None:
    for _ in range(3):
        fail(engine, shape="one")
    page = group_of(visitor)
    fail(engine, shape="another")
    assert "3 of 3 done" in ended(
        visitor, sent(visitor, f"{page}/retry", **shown(visitor, page), which="all")
    )
    assert one(engine, "SELECT count(*) FROM kratos_sync.deliveries WHERE failed_at IS NULL") == 3


def test_discarding_says_why_in_the_history(visitor: Visitor, engine: Engine) -> None:
    add_identity(engine)
    fail(engine)
    page = group_of(visitor)
    reason = "of a test run " + "x" * (LONGEST_REASON - 14)
    said = {**shown(visitor, page), "which": "all", "reason": reason}
    ended(visitor, sent(visitor, f"{page}/discard", **said))
    assert f"discarded</span> by ada: {reason}" in visitor.get(f"/identity/{SOMEBODY}").text


@pytest.mark.parametrize(("which", "retried"), [("one", 1), ("all", 3)])
def test_a_second_click_changes_nothing_more(
    visitor: Visitor, engine: Engine, which: str, retried: int
) -> None:
    for _ in range(3):
        fail(engine)
    page = group_of(visitor)
    said = {**shown(visitor, page), "which": which, "ticket": "the same"}
    first = sent(visitor, f"{page}/retry", **said)
    ended(visitor, first)
    assert sent(visitor, f"{page}/retry", **said) == first
    assert one(engine, "SELECT count(*) FROM kratos_sync.operations") == 1
    statement = "SELECT count(*) FROM kratos_sync.deliveries WHERE failed_at IS NULL"
    assert one(engine, statement) == retried


def test_no_more_are_discarded_than_the_page_named(visitor: Visitor, engine: Engine) -> None:
    fail(engine)
    page = group_of(visitor)
    said = {**shown(visitor, page), "which": "all", "reason": "a test", "ticket": "t"}
    fail(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE kratos_sync.deliveries SET failed_at = '2026-01-01'"))
    answer = visitor.post(f"{page}/discard", said)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "There are 2 of them now: open the page again." in answer.text
    assert one(engine, "SELECT count(*) FROM kratos_sync.deliveries") == 2


@pytest.mark.parametrize(
    "path", ["/events?hook=%00", "/failures?consumer=%00", "/audit?by=%00", "/events?name=a%00b"]
)
def test_what_postgresql_has_no_text_for_is_refused(visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "There is no such text." in answer.text
    form = {"known": "\0", "reason": "\0", "ticket": "t"}
    assert visitor.post("/identity", form).status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000])
def test_an_operation_that_there_cannot_be_is_not_found(visitor: Visitor, number: str) -> None:
    answer = visitor.get(f"/audit/{number}")
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.headers["content-security-policy"] == POLICY


def test_what_is_real_is_tried_once_and_after_a_word(visitor: Visitor, engine: Engine) -> None:
    event = f"/events/{add_event(engine, name='identity.deletion_requested')}/try"
    form = {"reason": "to see", "ticket": "t", "consumer": "DeleteFromKratos"}
    unsaid = visitor.post(event, form)
    assert "for real: say so first." in unsaid.text
    assert one(engine, "SELECT count(*) FROM kratos_sync.operations") == 0
    visitor.post(event, {**form, "really": "yes"})
    again = visitor.post(event, {**form, "really": "yes"})
    assert "It was tried already" in again.text
    assert one(engine, "SELECT count(*) FROM kratos_sync.operations") == 1


def test_the_page_of_an_event_names_its_hook(visitor: Visitor, engine: Engine) -> None:
    assert "hook login" in visitor.get(f"/events/{add_event(engine, hook='login')}").text


@pytest.mark.parametrize(
    "form",
    [
        {"reason": "why", "ticket": "", "which": "one"},
        {"reason": "", "ticket": "t", "which": "one"},
        {"reason": "x" * (LONGEST_REASON + 1), "ticket": "t", "which": "one"},
        {"reason": "why", "ticket": "t", "which": "some"},
    ],
    ids=["no ticket", "no reason", "a long reason", "no choice"],
)
def test_an_incomplete_form_is_explained_and_changes_nothing(
    visitor: Visitor, engine: Engine, form: dict[str, str]
) -> None:
    fail(engine)
    answer = visitor.post(f"{group_of(visitor)}/retry", form)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert one(engine, "SELECT count(*) FROM kratos_sync.operations") == 0


def test_one_page_pauses_one_consumer_after_another(visitor: Visitor) -> None:
    for consumer in (SYNC, "CountRegistrations"):
        form = {"ticket": "of one page", "reason": "a test", "consumer": consumer}
        visitor.post("/consumers/pause", form)
    page = visitor.get("/").text
    assert f"Resume {SYNC}</button>" in page
    assert "Resume CountRegistrations</button>" in page


def test_a_consumer_is_paused_and_resumed(visitor: Visitor) -> None:
    ended(visitor, sent(visitor, "/consumers/pause", consumer=SYNC, reason="its mail is down"))
    assert "by ada: its mail is down" in visitor.get("/").text
    ended(visitor, sent(visitor, "/consumers/resume", consumer=SYNC))
    assert "its mail is down" not in visitor.get("/").text


def test_an_identity_is_deleted_and_erased_with_a_second_factor(
    visit: Visit, visitor: Visitor, engine: Engine
) -> None:
    add_identity(engine)
    add_event(engine)
    refused = visit(PRIVACY).post(
        f"/identity/{SOMEBODY}/erase", {"reason": "she asked", "ticket": "t"}
    )
    assert "second factor" in refused.text
    ended(visitor, sent(visitor, f"/identity/{SOMEBODY}/delete"))
    assert "identity.deletion_requested" in visitor.get(f"/identity/{SOMEBODY}").text
    ended(visitor, sent(visitor, f"/identity/{SOMEBODY}/erase", reason="she asked"))
    assert "Erased" in visitor.get(f"/identity/{SOMEBODY}").text
    assert (
        one(engine, f"SELECT count(*) FROM kratos_sync.events WHERE payload::text ~ '{CANARY}'")
        == 0
    )


def test_events_are_searched_by_what_they_are(visitor: Visitor, engine: Engine) -> None:
    dead, plain = fail(engine), add_event(engine, name="identity.registered", source="SyncX")
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE kratos_sync.events SET hook = 'login',"
                " trace_context = '00-0123456789abcdef0123456789abcdef-0123456789abcdef-01'"
                " WHERE id = :id"
            ),
            {"id": dead},
        )
    found = {
        "": {dead, plain},
        "?name=identity.registered": {plain},
        "?source=SyncX": {plain},
        "?hook=login": {dead},
        "?trace_id=0123456789abcdef0123456789abcdef": {dead},
        f"?consumer={SYNC}": {dead},
        "?outcome=dead": {dead},
        f"?outcome=dead&consumer={SYNC}": {dead},
        "?outcome=dead&consumer=CountRegistrations": set(),
        "?outcome=pending": set(),
        "?outcome=failed": {dead},
        "?since=2000-01-01T00:00": {dead, plain},
        "?until=2000-01-01T00:00": set(),
    }
    for query, expected in found.items():
        page = visitor.get(f"/events{query}").text
        assert {each for each in (dead, plain) if f"/events/{each}" in page} == expected, query


@pytest.mark.parametrize(
    "query",
    [
        "trace_id=xyz",
        "outcome=great",
        "since=yesterday",
        "before=nothing",
        f"name={'x' * 201}",
    ],
)
def test_a_search_that_makes_no_sense_is_explained(visitor: Visitor, query: str) -> None:
    assert visitor.get(f"/events?{query}").status_code == HTTPStatus.BAD_REQUEST


def test_many_events_are_shown_page_by_page_each_once(visitor: Visitor, engine: Engine) -> None:
    events = {str(add_event(engine)) for _ in range(120)}
    seen: list[str] = []
    path = "/events"
    for _ in range(10):
        page = visitor.get(path).text
        seen += re.findall(r'<td><a href="/events/([0-9a-f-]{36})"', page)
        more = re.search(r'href="(/events\?before=[^"]+)"', page)
        if more is None:
            break
        path = more[1].replace("&amp;", "&")
    assert len(seen) == len(events)
    assert set(seen) == events


def test_a_consumer_is_tried_on_an_event_without_changing_anything(
    visitor: Visitor, engine: Engine
) -> None:
    event_id = add_event(engine, subject=ADA)
    with engine.begin() as connection:
        payload = json.dumps(recorded_webhooks()[0].body)
        connection.execute(text("UPDATE kratos_sync.events SET payload = :p"), {"p": payload})
    form = {"reason": "to see", "ticket": "t", "consumer": SYNC}
    answer = visitor.post(f"/events/{event_id}/try", form)
    assert "was tried, and everything was rolled back" in answer.text
    assert "kratos_sync.kratos_identities: 1 inserted" in answer.text
    assert "kratos_sync.operations" not in answer.text  # it is the console that wrote this
    assert one(engine, "SELECT count(*) FROM kratos_sync.kratos_identities") == 0


def test_who_tries_a_consumer_is_offered_the_one_that_failed(
    visitor: Visitor, engine: Engine
) -> None:
    event_id = add_event(engine, name="identity.deletion_requested")
    offered = re.compile(r">Try (\w+), and roll back</button>")
    consumers = ["DeleteFromKratos", "ForgetIdentity"]
    assert offered.findall(visitor.get(f"/events/{event_id}").text) == consumers
    log_attempt(engine, "DeleteFromKratos", event_id)
    log_attempt(engine, "ForgetIdentity", event_id, outcome="gave_up", error="ValueError")
    assert offered.findall(visitor.get(f"/events/{event_id}").text) == consumers[::-1]


def test_an_event_that_cannot_be_read_is_not_tried(visitor: Visitor, engine: Engine) -> None:
    form = {"reason": "to see", "ticket": "t", "consumer": SYNC}
    answer = visitor.post(f"/events/{add_event(engine)}/try", form)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "Not tried" in answer.text


def test_events_of_a_time_are_replayed(visitor: Visitor, engine: Engine) -> None:
    for _ in range(3):
        add_event(engine)
    form = {"consumer": SYNC, "name": "kratos_identity.updated", "since": "2020-01-01T00:00"}
    asked = visitor.post("/events/replay", {"reason": "a test", "ticket": "t", **form})
    assert f"Replay 3 events to {SYNC}</button>" in asked.text
    assert one(engine, "SELECT count(*) FROM kratos_sync.deliveries") == 0
    confirmed = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
    assert "3 of 3 done" in ended(visitor, sent(visitor, "/events/replay", **confirmed))
    assert one(engine, "SELECT count(*) FROM kratos_sync.deliveries") == 3


def test_a_replay_is_narrowed_as_a_search_is(visitor: Visitor, engine: Engine) -> None:
    add_event(engine)
    chosen = add_event(engine, hook="login")
    form = {"consumer": SYNC, "since": "2020-01-01T00:00", "hook": "login", "reason": "a test"}
    asked = visitor.post("/events/replay", {"ticket": "t", **form})
    assert f"Replay 1 event to {SYNC}</button>" in asked.text
    confirmed = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
    ended(visitor, sent(visitor, "/events/replay", **confirmed))
    assert one(engine, "SELECT event_id FROM kratos_sync.deliveries") == chosen
    no_trace = visitor.post("/events/replay", {"ticket": "t", **form, "trace_id": "all"})
    assert no_trace.status_code == HTTPStatus.BAD_REQUEST


def test_a_replay_to_a_consumer_without_such_events_is_not_offered(
    visitor: Visitor, engine: Engine
) -> None:
    add_event(engine)
    form = {"reason": "a test", "ticket": "t", "consumer": "CountRegistrations"}
    asked = visitor.post(f"/identity/{SOMEBODY}/replay", form).text
    assert "CountRegistrations has no such event to receive again." in asked
    assert "confirmed" not in asked


def test_a_pasted_configuration_is_checked_and_reads_no_file(visitor: Visitor) -> None:
    configuration = """
selfservice:
  flows:
    login:
      after:
        hooks:
          - hook: web_hook
            config: {url: "http://x/kratos/sync-identity", method: POST, body: "file:///etc/passwd"}
"""
    page = visitor.post("/kratos/check", {"configuration": configuration}).text
    assert "login" in page
    assert "root:" not in page
    wrong = visitor.post("/kratos/check", {"configuration": "a: [1"})
    assert wrong.status_code == HTTPStatus.BAD_REQUEST


def test_a_configured_file_is_checked_again_when_it_has_changed(
    engine: Engine, container: Container, tmp_path: Path
) -> None:
    file = tmp_path / "kratos.yml"
    settings = container.settings().model_copy(update={"console_kratos_config": file})
    with container.settings.override(settings), open_routes(container) as routes:
        visitor = Visitor(create_console(SignedIn(EVERYTHING), routes))
        assert "The configured file cannot be read: No such file" in visitor.get("/kratos").text
        file.write_text("selfservice: {flows: {login: {after: {hooks: []}}}}")
        page = visitor.get("/kratos").text
        assert "By the file that the console is configured with." in page
        assert '<th scope="row">login</th>' in page
        file.write_text("nothing: 1")
        assert "it has no `selfservice`" in visitor.get("/kratos").text


def test_a_reconciliation_without_kratos_is_recorded_as_failed(visitor: Visitor) -> None:
    assert "failed" in ended(visitor, sent(visitor, "/kratos/reconcile"))


def test_deleting_beyond_the_guard_needs_the_role_privacy(visit: Visit) -> None:
    form = {"reason": "sure", "ticket": "t", "allow_deletes": "500"}
    answer = visit(OPERATOR).post("/kratos/reconcile", form)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert "privacy" in answer.text


def test_the_audit_trail_is_exported_without_formulas(visitor: Visitor, engine: Engine) -> None:
    fail(engine)
    ended(
        visitor,
        sent(
            visitor,
            f"{(page := group_of(visitor))}/retry",
            **shown(visitor, page),
            which="all",
            reason="=cmd()",
        ),
    )
    answer = visitor.get("/audit.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    header, row = answer.text.splitlines()
    assert header.startswith("id,operation,by,how,reason")
    assert ",retry,ada,console,'=cmd()," in row


def test_an_operation_is_asked_to_stop(visitor: Visitor, container: Container) -> None:
    number = container.operations().begin(
        OperationRequest("replay", "cleo", How.CLI, consumer=SYNC), uuid4(), 10
    )
    assert visitor.get(f"/audit/{number}").text.count("Stop this replay after its step") == 1
    unsaid = visitor.post(f"/audit/{number}/stop", {"reason": " ", "ticket": "t"})
    assert unsaid.status_code == HTTPStatus.BAD_REQUEST
    for _ in range(2):
        form = {"reason": "the wrong hook", "ticket": "t"}
        answer = visitor.post(f"/audit/{number}/stop", form)
        assert answer.headers["location"] == f"/audit/{number}"
    assert "ada asked it to stop" in visitor.get(f"/audit/{number}").text
    stopped = container.operations().newest(OperationFilter("stop"), 9)
    assert [(each.reason, each.scope) for each in stopped] == [
        ("the wrong hook", {"operation": number})
    ]


@pytest.mark.parametrize(
    ("revision", "oldest", "said"),
    [
        ("0000", "0000", "run <code>kratos-sync migrate</code> first."),
        ("9999", "9999", "run a newer release."),
    ],
)
def test_pages_say_what_to_run_on_the_schema_of_another_release(
    visitor: Visitor, engine: Engine, revision: str, oldest: str, said: str
) -> None:
    add_identity(engine)
    other = text("UPDATE kratos_sync.alembic_version SET version_num = :r, oldest_release = :o")
    with engine.begin() as connection:
        connection.execute(other, {"r": revision, "o": oldest})
    for path in (*set(PAGES) - {"/identity"}, f"/identity/{SOMEBODY}"):
        answer = visitor.get(path)
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE, path
        assert f"The database schema is at {revision}" in answer.text
        assert said in answer.text


def test_pages_say_what_to_run_where_there_is_no_schema(visitor: Visitor, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER SCHEMA kratos_sync RENAME TO elsewhere"))
    for path in set(PAGES) - {"/identity"}:
        answer = visitor.get(path)
        assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE, path
        assert "The database schema is at no revision" in answer.text


def test_pages_say_so_when_postgresql_is_away() -> None:
    away = Container()
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/away"
    settings = Settings(_env_file=None, database_url=url, broker_url="redis://127.0.0.1:1")
    away.settings.override(settings)
    with open_routes(away) as routes:
        visitor = Visitor(create_console(SignedIn(EVERYTHING), routes))
        for path in set(PAGES) - {"/identity"}:
            answer = visitor.get(path)
            assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE, path
            assert "PostgreSQL does not answer" in answer.text
