"""Two deployments that share the identities of one Kratos, and HAProxy before them."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from kratos_sync.domain.id_range import IdRange
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.api.cli.invoking import kratos_sync
from tests.databases import MigratedDatabase
from tests.end_to_end.service import CONNECTIONS, KEY, Service, differences
from tests.infrastructure.bus.servers import ReturningValkey
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person
from tests.ports import free_port
from tests.programs import installed_program
from tests.recorded import Call, Recording, two_hundred_lives
from tests.waiting import DEADLINE_SECONDS, until

CONFIG = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
SYNC, PARSE = "/kratos/sync-identity", "/kratos/parse-identity"
NIL = "00000000-0000-0000-0000-000000000000"


class Share(Service):
    """A deployment that holds some of the identities."""

    def __init__(self, folder: Path, database_url: str, valkey: ReturningValkey, ids: str) -> None:
        super().__init__(folder, database_url, valkey)
        self.ids = IdRange.parse(ids)

    def environment_of(self, name: str) -> dict[str, str]:
        return {**super().environment_of(name), "IDENTITY_IDS": str(self.ids)}

    @property
    def address(self) -> str:
        """Where its api listens."""
        return f"127.0.0.1:{self.commands()['api'][-1]}"

    def of(self, listing: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the listing that it holds."""
        return {each: listing[each] for each in listing if each[0] in self.digits}

    @cached_property
    def digits(self) -> str:
        """The first digits of its identities' ids, found without the service's own rule."""
        return {"0-7": "01234567", "8-f": "89abcdef"}[str(self.ids)]

    def events(self, name: str = "%") -> int:
        """How many events of this name are recorded."""
        like = "SELECT count(*) AS events FROM kratos_sync.events WHERE name LIKE %s"
        number: int = self.ask(like, name)[0]["events"]
        return number

    def reconcile(self, kratos_url: str) -> dict[str, Any]:
        """Reconcile once, and wait until what was found is repaired."""
        given = {
            "DATABASE_URL": self.database_url,
            "IDENTITY_IDS": str(self.ids),
            "KRATOS_ADMIN_URL": kratos_url,
        }
        found: dict[str, Any] = json.loads(kratos_sync("reconcile", "--json", **given).stdout)
        self.settle()
        return found


@dataclass(frozen=True)
class Deployments:
    """Both, the balancer before them, and what Kratos has in the end."""

    low: Share
    high: Share
    http: httpx.Client
    lives: Recording
    kratos: AdminStandIn

    def post(self, calls: Sequence[Call]) -> list[int]:
        """Send webhooks through the balancer, some at a time."""
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            return list(threads.map(lambda call: self.send(call.body, call.headers), calls))

    def send(
        self, body: bytes | Iterator[bytes], headers: Mapping[str, str] = {}, path: str = SYNC
    ) -> int:
        given = {"X-Api-Key": KEY, "Content-Type": "application/json", **headers}
        return self.http.post(path, content=body, headers=given).status_code


@contextmanager
def haproxy(*apis: str) -> Iterator[httpx.Client]:
    """Run it before these apis; give a client of it."""
    program = installed_program("haproxy", "haproxy")
    address = f"127.0.0.1:{free_port()}"
    given = dict(zip(("LISTEN", "API_0_7", "API_8_F"), (address, *apis), strict=True))
    with (
        subprocess.Popen(
            [program, "-db", "-f", CONFIG], env=given, stdout=subprocess.DEVNULL
        ) as run,
        httpx.Client(
            base_url=f"http://{address}", timeout=DEADLINE_SECONDS, trust_env=False
        ) as http,
    ):
        try:
            until(lambda: is_ready(http))
            yield http
        finally:
            run.terminate()


def is_ready(http: httpx.Client) -> bool:
    try:
        return http.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def running(
    migrated_database: MigratedDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployments]:
    lives, folder = two_hundred_lives(), tmp_path_factory.mktemp("shares")
    with ExitStack() as undo:
        valkey = undo.enter_context(ReturningValkey(folder / "valkey"))
        kratos = undo.enter_context(AdminStandIn(InMemoryDocuments(lives.listing.values())))
        shares = []
        for ids in ("0-7", "8-f"):
            (folder / ids).mkdir()
            url = undo.enter_context(migrated_database())
            shares.append(Share(folder / ids, url, valkey, ids))
        with ThreadPoolExecutor(2) as together:
            low, high = together.map(undo.enter_context, shares)
        http = undo.enter_context(haproxy(low.address, high.address))
        yield Deployments(low, high, http, lives, kratos)


@pytest.fixture
def both(running: Deployments) -> Iterator[Deployments]:
    yield running
    running.low.forget()
    running.high.forget()


def test_each_webhook_arrives_in_its_own_database_and_reconciling_finds_nothing(
    both: Deployments,
) -> None:
    assert both.post(both.lives.calls) == [200] * 866

    for share in (both.low, both.high):
        share.settle()
        events = share.ask("SELECT subject::text FROM kratos_sync.events WHERE source = 'webhook'")
        mine = [call.person for call in both.lives.calls if call.person[0] in share.digits]
        assert sorted(row["subject"] for row in events) == sorted(mine)
    assert len(both.low.people()) + len(both.high.people()) == 200

    for share in (both.low, both.high):
        found = share.reconcile(both.kratos.url)
        assert found["outcome"] == "completed"
        assert found["identities"] == found["known"] == len(share.of(both.lives.listing))
        assert (found["missing"], found["unseen"], found["gone"]) == (0, 0, 0)
        assert differences(share, share.of(both.lives.listing)) == []
        assert share.reconcile(both.kratos.url)["stale"] == 0


@pytest.mark.parametrize("size", [0, 20_000, 1_000_000])
def test_a_body_of_any_size_and_order_arrives_where_its_identity_is(
    both: Deployments, size: int
) -> None:
    for share, other, digit in ((both.low, both.high, "7"), (both.high, both.low, "8")):
        identity_id = digit + str(uuid4())[1:]
        document = {**person(), "traits": {"text": "x" * size}}
        document.pop("id")
        body = json.dumps({"identity": {**document, "id": identity_id}}).encode()

        assert both.send(iter([body[:100], body[100:]])) == 200
        share.settle()

        assert share.has(identity_id)
        assert not other.has(identity_id)


def test_a_body_without_an_id_is_answered_as_without_a_balancer(both: Deployments) -> None:
    failed = "kratos_webhook.template_failed"

    assert both.send(b"") == 200
    assert both.low.events(failed) + both.high.events(failed) == 1
    assert both.send(b'{"identity": null}') == 422
    assert both.send(json.dumps({"identity": {"id": NIL}}).encode()) == 422
    assert both.send(b"no JSON") == 400
    assert both.send(json.dumps({"identity": {"id": "x" * 1_100_000}}).encode()) == 413
    assert both.send(b"{}", {"X-Api-Key": "another-key-of-no-worth"}) == 403
    assert both.send(json.dumps({"identity": person()}).encode(), path=PARSE) == 200


def test_a_misrouted_webhook_is_refused_and_not_recorded(both: Deployments) -> None:
    events = [share.events() for share in (both.low, both.high)]

    assert both.low.call({"identity": {"id": f"8{NIL[1:]}"}}) == 503
    assert both.high.call({"identity": {"id": f"7{NIL[1:]}"}}) == 503

    assert [share.events() for share in (both.low, both.high)] == events


def test_the_documentation_names_the_memory_of_as_many_calls_as_are_held() -> None:
    lines = dict(re.findall(r"^ +(maxconn|tune\.bufsize) (\d+)$", CONFIG.read_text(), re.MULTILINE))
    held, each = int(lines["maxconn"]), int(lines["tune.bufsize"])
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()

    assert f"the {held:,} that are held at once (`maxconn`) take {held * each / 1e9:.1f} GB" in page
    assert f"{held} calls take {held * each / 1e9:.1f} GB" in CONFIG.read_text()
