"""The Admin API over HTTP, when not all is well."""

import gzip
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from kratos_sync.application.ports.kratos import (
    KratosNotConfigured,
    KratosRefused,
    KratosUnavailable,
)
from kratos_sync.infrastructure.kratos import admin_api
from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.infrastructure.kratos.clock import Clock
from tests.kratos import reply
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import many, person
from tests.waiting import DEADLINE_SECONDS

ADA = UUID("e52e75c7-afbb-4316-a4ef-3977a428a2ca")
FORWARDED = "<h1>ada@example.org</h1>"

Call = Callable[[HttpKratosAdmin], object]
CALLS: dict[str, Call] = {
    "page": lambda admin: admin.page(None),
    "find": lambda admin: admin.find(ADA),
    "find_all": lambda admin: admin.find_all([ADA]),
    "delete": lambda admin: admin.delete(ADA),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class Kratos(AdminStandIn):
    """The stand-in, with Ada, and an adapter whose clock stands until it waits."""

    def __init__(self) -> None:
        self.town = InMemoryDocuments([person(ADA)])
        super().__init__(self.town)
        self.clock = Clock()
        self.admin = self.asked()

    def asked(self, url: str | None = None, **options: Any) -> HttpKratosAdmin:
        url = url or self.url
        return HttpKratosAdmin(SecretStr(url), pause=self.clock.pause, clock=self.clock, **options)

    @property
    def waited(self) -> float:
        return sum(self.clock.pauses)


@pytest.fixture
def kratos() -> Iterator[Kratos]:
    with Kratos() as stand_in:
        yield stand_in
        stand_in.admin.close()


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@every_call
@pytest.mark.parametrize(
    "trouble",
    [
        reply.broken(500),
        reply.broken(503, "1"),
        reply.too_many("2"),
        reply.too_many(None),
        reply.says(b"", 408),
    ],
    ids=["500", "503", "429", "429 without a time", "408"],
)
def test_what_failed_is_asked_again(kratos: Kratos, call: Call, trouble: reply.Trouble) -> None:
    kratos.next(trouble)

    call(kratos.admin)

    assert len(kratos.seen) == 2
    assert kratos.waited < 3


@pytest.mark.parametrize("name", ["page", "find", "find_all"])
@pytest.mark.parametrize("size", [0, 1, 300])
def test_an_answer_that_is_cut_off_is_asked_for_again(kratos: Kratos, name: str, size: int) -> None:
    kratos.next(reply.cut_at(size))

    assert CALLS[name](kratos.admin)

    assert len(kratos.seen) == 2


@pytest.mark.parametrize("name", ["page", "find", "find_all"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'[{"id":',
        b"[\x00]",
        b'["\x00"]',
        b'["\xff"]',
        gzip.compress(b"[]", mtime=0),
    ],
)
def test_what_is_not_json_is_asked_for_again(kratos: Kratos, name: str, body: bytes) -> None:
    kratos.next(reply.says(body))

    assert CALLS[name](kratos.admin)

    assert len(kratos.seen) == 2


@every_call
def test_a_kratos_that_is_not_there_is_unavailable(kratos: Kratos, call: Call) -> None:
    admin = kratos.asked(f"http://127.0.0.1:{closed_port()}")

    with pytest.raises(KratosUnavailable):
        call(admin)

    assert kratos.waited < (180 if call is CALLS["page"] else 10)


def test_a_scan_waits_for_minutes_and_one_call_for_seconds(kratos: Kratos) -> None:
    kratos.always = reply.broken(500)

    with pytest.raises(KratosUnavailable):
        kratos.admin.find(ADA)
    one = kratos.waited
    with pytest.raises(KratosUnavailable):
        kratos.asked().page(None)

    assert one < 10
    assert 100 < kratos.waited - one < 181


def test_a_scan_obeys_a_429_and_goes_on(kratos: Kratos) -> None:
    kratos.next(reply.too_many("120"), reply.too_many("120"))

    assert json.loads(kratos.admin.page(None).identities)[0]["id"] == str(ADA)

    assert 240 <= kratos.waited < 242


def test_a_client_that_keeps_trying_retries_every_call_for_as_long_as_a_page(
    kratos: Kratos,
) -> None:
    kratos.next(reply.too_many("120"))

    assert kratos.asked(keeps_trying=True).find(ADA)

    assert 120 <= kratos.waited < 121


def test_a_failed_call_reports_how_long_kratos_asks_to_wait(kratos: Kratos) -> None:
    kratos.next(reply.too_many("99999"))

    with pytest.raises(KratosUnavailable) as error:
        kratos.admin.find(ADA)

    assert error.value.retry_after == timedelta(minutes=10)
    assert kratos.waited == 0


def test_no_call_is_made_before_retry_after_has_passed(kratos: Kratos) -> None:
    kratos.next(reply.too_many("60"))
    for _ in range(5):
        with pytest.raises(KratosUnavailable):
            kratos.admin.find(ADA)

    assert len(kratos.seen) == 1
    kratos.clock.now += 60
    assert kratos.admin.find(ADA)


def test_a_kratos_that_fails_is_not_asked_all_the_time(kratos: Kratos) -> None:
    kratos.always = reply.broken(500)
    for _ in range(20):
        with pytest.raises(KratosUnavailable):
            kratos.admin.find(ADA)

    assert len(kratos.seen) == 5
    kratos.always = None
    kratos.clock.now += 15
    assert kratos.admin.find(ADA)


@every_call
@pytest.mark.parametrize("status", [400, 401, 403, 405, 413, 301, 307, 204, 201])
def test_what_kratos_refuses_is_not_asked_again(kratos: Kratos, call: Call, status: int) -> None:
    if status == 204 and call is CALLS["delete"]:
        return
    kratos.always = reply.says(b"", status, Location=f"{kratos.url}/elsewhere")

    with pytest.raises(KratosRefused) as error:
        call(kratos.admin)

    assert error.value.status == status
    assert len(kratos.seen) == 1


@every_call
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"404 page not found\n",
        FORWARDED.encode(),
        b"{}",
        b"[]",
        b'{"error": "not found"}',
        b'{"error": {"code": 404, "message": "The requested project does not exist"}}',
        b'{"error": {"code": 404, "message": "' + b"x" * 70_000 + b'"}}',
    ],
)
def test_a_404_that_is_not_kratos_own_is_no_deletion(
    kratos: Kratos, call: Call, body: bytes
) -> None:
    kratos.always = reply.says(body, 404)

    with pytest.raises(KratosRefused, match="KRATOS_ADMIN_URL"):
        call(kratos.admin)


def test_a_wrong_path_is_no_deletion(kratos: Kratos) -> None:
    with pytest.raises(KratosRefused):
        kratos.asked(f"{kratos.url}/wrong").find(uuid4())


@pytest.mark.parametrize("name", ["page", "find_all"])
@pytest.mark.parametrize("body", [b"{}", b"null", b'"ada"', b"7"])
def test_what_is_no_listing_is_refused(kratos: Kratos, name: str, body: bytes) -> None:
    kratos.always = reply.says(body)

    with pytest.raises(KratosRefused, match="no listing"):
        CALLS[name](kratos.admin)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"[]", "no identity"),
        (b"{}", "id is empty"),
        (json.dumps(person(ADA, updated_at="yesterday")).encode(), "updated_at"),
        (json.dumps(person()).encode(), "another identity"),
        (b'{"id": "%s", "traits": {"n": 1e400}}' % str(ADA).encode(), "range of doubles"),
        (b'{"id": "%s", "traits": %s}' % (str(ADA).encode(), b"9" * 5000), "kept"),
        (b'{"id": "%s", "traits": %s1%s}' % (str(ADA).encode(), b"[" * 200, b"]" * 200), "deep"),
    ],
    ids=["list", "no id", "odd time", "stranger", "1e400", "5000 digits", "deep"],
)
def test_one_that_cannot_be_read_is_refused_and_opens_no_circuit(
    kratos: Kratos, document: bytes, why: str
) -> None:
    kratos.always = reply.says(document)
    for _ in range(6):
        with pytest.raises(KratosRefused, match=why):
            kratos.admin.find(ADA)

    kratos.always = None
    assert kratos.admin.find(ADA)


def test_a_page_passes_numbers_on_that_python_could_not_hold(kratos: Kratos) -> None:
    body = b'[{"id": 1e400, "n": 0.10000000000000000000001, "m": ' + b"9" * 5000 + b"}]"
    kratos.next(reply.says(body))

    assert kratos.admin.page(None).identities == body


def test_a_kratos_that_does_not_know_ids_proves_no_deletion(kratos: Kratos) -> None:
    kratos.always = reply.says(json.dumps([person(), person(ADA)]).encode())

    with pytest.raises(KratosRefused, match="asked for"):
        kratos.admin.find_all([ADA])


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ("LARGEST_PAGE", "page"),
        ("LARGEST_PAGE", "find_all"),
        ("LARGEST_IDENTITY", "find"),
    ],
)
def test_an_answer_that_is_too_large_is_refused(
    kratos: Kratos, monkeypatch: pytest.MonkeyPatch, limit: str, name: str
) -> None:
    monkeypatch.setattr(admin_api, limit, 100)

    with pytest.raises(KratosRefused, match="larger than 100 bytes"):
        CALLS[name](kratos.admin)


def test_a_listing_that_leads_elsewhere_is_not_followed(kratos: Kratos) -> None:
    kratos.always = reply.linking('<http://evil.example.org/admin/identities?a=1>; rel="next"')

    with pytest.raises(KratosRefused, match="Link"):
        kratos.admin.page(None)


def test_an_answer_that_trickles_is_not_waited_for(
    kratos: Kratos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_api, "CALL_LIMITS", admin_api.CALL_LIMITS._replace(attempt=0.4))
    kratos.next(reply.trickling(1, 0.02))

    with capture_logs() as lines:
        assert kratos.admin.find(ADA)

    assert lines
    assert {line["problem"] for line in lines} == {"timed out"}


def test_an_answer_that_does_not_come_is_not_waited_for(
    kratos: Kratos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_api, "CALL_LIMITS", admin_api.CALL_LIMITS._replace(attempt=0.4))
    kratos.next(reply.slow(60))

    with capture_logs() as lines:
        assert kratos.admin.find(ADA)

    assert lines
    assert {line["problem"] for line in lines} == {"timed out"}


def test_a_deletion_whose_answer_was_lost_finds_no_identity(kratos: Kratos) -> None:
    kratos.next(reply.says(b"", 500))

    assert kratos.admin.delete(ADA) is False
    assert kratos.town.documents == {}


def test_an_admin_api_behind_a_path_is_walked_to_the_end() -> None:
    people = many(501)
    with AdminStandIn(InMemoryDocuments(people), prefix="/ory/kratos") as stand_in:
        admin = HttpKratosAdmin(SecretStr(f"{stand_in.url}/"))
        first = admin.page(None)

        assert len(json.loads(admin.page(first.next).identities)) == 1
        assert admin.find(UUID(people[0]["id"]))
        admin.close()
    assert all(seen.target.startswith("/ory/kratos/admin/") for seen in stand_in.seen)


def test_ids_are_asked_for_in_urls_that_any_proxy_takes(kratos: Kratos) -> None:
    kratos.admin.find_all([uuid4() for _ in range(500)])

    assert len(kratos.seen) == 7
    assert max(len(seen.target) for seen in kratos.seen) < 3600


def test_a_rate_bounds_the_calls(kratos: Kratos) -> None:
    admin = kratos.asked(rate=2)
    for _ in range(5):
        admin.find(ADA)
    admin.close()

    assert kratos.waited == pytest.approx(2)


def test_many_threads_ask_at_once(kratos: Kratos) -> None:
    people = [kratos.town.put(document) for document in many(200)]
    admin = HttpKratosAdmin(SecretStr(kratos.url))
    found: list[UUID] = []

    def ask(some: list[UUID]) -> None:
        for identity_id in some:
            identity = admin.find(identity_id)
            if identity is not None and identity.id == identity_id:
                found.append(identity_id)

    threads = [threading.Thread(target=ask, args=(people[n::40],)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    admin.close()

    assert sorted(found) == people


def test_a_call_may_be_ended_where_it_waits(kratos: Kratos) -> None:
    def pause(seconds: float) -> None:
        if seconds:
            raise KeyboardInterrupt

    kratos.always = reply.broken(500)
    admin = HttpKratosAdmin(SecretStr(kratos.url), pause=pause)

    with pytest.raises(KeyboardInterrupt):
        admin.page(None)
    admin.close()


def test_a_token_is_sent_as_bearer_token(kratos: Kratos) -> None:
    kratos.authorization = "Bearer ory_pat_lovelace"

    assert kratos.asked(token=SecretStr("ory_pat_lovelace")).find(ADA)
    with pytest.raises(KratosRefused) as error:
        kratos.asked(token=SecretStr("ory_pat_byron")).find(ADA)

    assert error.value.status == 401


def test_a_user_and_password_in_the_url_are_sent_and_a_token_stands_above_them(
    kratos: Kratos,
) -> None:
    url = kratos.url.replace("//", "//ada:love%40lace@")
    kratos.authorization = "Basic YWRhOmxvdmVAbGFjZQ=="
    assert kratos.asked(url).find(ADA)
    kratos.authorization = "Bearer x"
    assert kratos.asked(url, token=SecretStr("x")).find(ADA)

    assert all(seen.headers["host"] == kratos.url.removeprefix("http://") for seen in kratos.seen)


def test_nothing_but_what_is_needed_is_sent(kratos: Kratos) -> None:
    kratos.next(reply.says(b"[]", Set_Cookie="session=1"))
    kratos.admin.page(None)
    kratos.admin.page(None)

    for seen in kratos.seen:
        assert seen.headers.keys() == {"host", "accept", "accept-encoding", "user-agent"}


def test_proxies_of_the_environment_are_not_used(
    kratos: Kratos, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setitem(os.environ, name, f"http://127.0.0.1:{closed_port()}")

    assert kratos.asked().find(ADA)


def test_no_secret_and_no_person_is_in_a_log_or_an_error(kratos: Kratos) -> None:
    url = kratos.url.replace("//", "//byron:lovelace@")
    printed: list[str] = []
    troubles = [
        reply.broken(500),
        reply.broken(403),
        reply.says(FORWARDED.encode(), 404),
        reply.says(FORWARDED.encode()),
        reply.says(json.dumps(person(ADA, state={"ada@example.org": 1})).encode()),
        reply.linking('<http://ada@example.org/>; rel="next"'),
        reply.cut_at(10),
    ]
    with capture_logs() as lines:
        for trouble in troubles:
            admin = kratos.asked(url, token=SecretStr("lovelace"))
            kratos.always = trouble
            for call in (CALLS["find"], CALLS["page"]):
                try:
                    call(admin)
                except (KratosRefused, KratosUnavailable) as error:
                    printed.append(f"{error!r} {error} {error.__cause__!r}")
            printed.append(repr(admin))

    text = f"{printed} {lines}"
    assert len(printed) > len(troubles)
    for secret in ("lovelace", "byron", "example.org", "h1"):
        assert secret not in text


def test_replaced_characters_are_counted_in_the_log(kratos: Kratos) -> None:
    kratos.town.put(person(ADA, traits={"Ada\x00": "\ud800"}, metadata_public="\x00"))
    with capture_logs() as lines:
        kratos.admin.find(ADA)
        kratos.admin.page(None)

    assert [(line["event"], line["characters"], line.get("fields")) for line in lines] == [
        ("kratos_characters_replaced", 3, ["metadata_public", "traits"]),
        ("kratos_characters_replaced", 3, None),
    ]


def test_without_a_url_there_is_no_admin_api() -> None:
    with pytest.raises(KratosNotConfigured, match="KRATOS_ADMIN_URL is not set"):
        HttpKratosAdmin(None)


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_without_sense_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        HttpKratosAdmin(SecretStr("http://kratos"), rate=rate)
