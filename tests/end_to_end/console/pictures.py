"""Takes the pictures of docs/console: recorded lives, consumers that fail, a real browser.

python -m tests.end_to_end.console.pictures docs/console
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
from playwright.sync_api import sync_playwright

from kratos_sync.infrastructure.embedded import EmbeddedPostgres, EmbeddedValkey
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.end_to_end.console.using import Console, Person, running_console
from tests.end_to_end.processes import Processes
from tests.kratos.admin_stand_in import AdminStandIn
from tests.recorded import two_hundred_lives
from tests.waiting import until

ROOT = Path(__file__).parents[3]
KEY = "a-key-of-no-worth"
WIDE, PHONE = (1200, 640), (375, 720)
LOST = 14
"""People whom Kratos does not list any more: more than a reconciliation deletes by itself."""
PENDING = "SELECT count(*) FROM kratos_sync.deliveries WHERE failed_at IS NULL"
SILENT = """
    UPDATE kratos_sync.hooks_heard SET first_at = now() - interval '90 d',
           last_at = now() - interval '12 d', calls = 640
    WHERE label = (SELECT label FROM kratos_sync.hooks_heard WHERE label LIKE 'verification%'
                   LIMIT 1)
"""
FAILED = """
    SELECT e.subject FROM kratos_sync.deliveries d JOIN kratos_sync.events e ON e.id = d.event_id
    WHERE d.failed_at IS NOT NULL AND d.consumer = 'UpdateCustomer' LIMIT 1
"""


class Story:
    """A service whose people lived as recorded, and what went wrong since."""

    def __init__(self, processes: Processes, database_url: str, seconds: float) -> None:
        self._processes = processes
        self._database_url = database_url
        self._seconds = seconds
        self._recording = two_hundred_lives()
        self.people = InMemoryDocuments(self._recording.listing.values())

    def live(self) -> None:
        """Send the recorded calls, one after the other, and wait until all is done or dead."""
        began, calls = time.monotonic(), self._recording.calls
        for number, call in enumerate(calls):
            time.sleep(max(0.0, began + self._seconds * number / len(calls) - time.monotonic()))
            headers = {**call.headers, "X-Api-Key": KEY}
            answer = self._processes.http.post(
                "/kratos/sync-identity", content=call.body, headers=headers
            )
            assert answer.is_success, answer.text
        until(lambda: self.one(PENDING) == 0)

    def drift(self) -> None:
        """Let webhooks be missed and a hook go silent; the last reconciliation deletes nobody."""
        ids = sorted(self.people.documents)
        for missed in (0, 3, 1, 6):
            for each in ids[:missed]:
                person = self.people.documents[each]
                updated = datetime.now(UTC) - timedelta(minutes=10)
                traits = {**person["traits"], "newsletter": str(time.time_ns())}
                self.people.put({**person, "traits": traits, "updated_at": updated.isoformat()})
            self.reconcile()
        for each in ids[-LOST:]:
            self.people.remove(each)
        self.reconcile()
        self.one(SILENT)

    def reconcile(self) -> None:
        self._processes.run("reconcile", "--by", "nightly", "--reason", "every night")
        until(lambda: self.one(PENDING) == 0)

    def one(self, statement: str) -> object:
        """The first value that a statement gives, if any."""
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return row and row[0]


@contextmanager
def running(folder: Path, seconds: float) -> Iterator[tuple[Story, str]]:
    """Every process of the service; the story so far, and where the console is."""
    os.environ |= {"KRATOS_SYNC_APP": f"{__package__}.shop:app", "PYTHONPATH": str(ROOT)}
    with (
        EmbeddedPostgres(folder / "postgresql") as postgres,
        EmbeddedValkey(folder / "valkey") as valkey,
        AdminStandIn(InMemoryDocuments()) as kratos,
    ):
        settings = {
            "DATABASE_URL": postgres.url,
            "BROKER_URL": valkey.url,
            "KRATOS_ADMIN_URL": kratos.url,
            "KRATOS_WEBHOOK_API_KEYS": KEY,
        }
        signing_in = {
            "CONSOLE_SIGN_IN": "proxy",
            "CONSOLE_PROXY_ADDRESSES": "127.0.0.1",
            "CONSOLE_KRATOS_CONFIG": str(ROOT / "deploy/kratos/kratos.yml"),
        }
        with Processes(folder, settings) as processes:
            assert processes.run("migrate")[0] == 0
            processes.start_api()
            processes.start("relay", "relay")
            processes.start("worker", "worker")
            story = Story(processes, postgres.url, seconds)
            kratos.people = story.people
            with running_console(folder, **settings, **signing_in) as (address, _):
                yield story, address


def act(person: Person, failed: UUID) -> None:
    """Leave rows in the audit trail."""
    for unfold, button, reason in (
        ("Ask Kratos now", "Sync identity", "Ticket 4711: an old address in the newsletter"),
        ("Show the person's data", "Show it", "Ticket 4711: which address do we have?"),
    ):
        person.open(f"/identity/{failed}")
        person.unfold(unfold)
        person.send(button, reason)
        person.page.wait_for_load_state()
    person.open("/failures?consumer=SendWelcomeEmail")
    person.click("td a >> nth=0")
    person.send("Retry one of", "The mail server is back")
    person.sees("dead letter", within="#progress ol")
    for change in ("Pause", "Resume"):
        person.open("/")
        if change == "Pause":  # what is paused can be resumed without unfolding
            person.unfold("Pause or resume a consumer")
        person.send(f"{change} CountRegistrations", "Its table is being rebuilt")
        person.sees("completed")


def take(console: Console, story: Story, folder: Path) -> None:
    """Take every picture."""
    failed = UUID(str(story.one(FAILED)))
    with console.person(name="grace") as person:
        act(person, failed)

    def shoot(person: Person, name: str, scroll_to: str | None = None) -> None:
        page = person.page
        page.wait_for_load_state("networkidle")
        if scroll_to:
            page.locator(scroll_to).first.evaluate("each => each.scrollIntoView()")
        size = page.viewport_size
        assert size is not None
        end = page.locator("main").evaluate("each => each.getBoundingClientRect().bottom")
        clip = {"x": 0.0, "y": 0.0, "width": size["width"], "height": min(size["height"], end)}
        page.screenshot(path=folder / f"{name}.png", clip=clip)  # type: ignore[arg-type]  # typed

    zone = {"locale": "en-GB", "timezone_id": "Europe/Berlin"}
    width, height = PHONE
    with console.person(name="grace", width=width, height=height, dark=True, **zone) as person:
        person.open("/")
        shoot(person, "now-phone-dark")
        person.open(f"/identity/{failed}")
        shoot(person, "identity-phone-dark", "#story")
    width, height = WIDE
    with console.person(name="grace", width=width, height=height, **zone) as person:
        paths = {
            "now": "/",
            "identity": f"/identity/{failed}",
            "events": "/events?outcome=dead",
        }
        for page in ("failures", "events", "kratos", "audit", "now", "identity"):
            person.open(paths.get(page, f"/{page}"))
            shoot(person, page)
        person.open("/kratos")
        shoot(person, "kratos-runs", "h2:has-text('Missed webhooks')")
        shoot(person, "kratos-coverage", "h2:has-text('Which flows')")
        person.open("/failures")
        person.click("td a >> nth=0")
        shoot(person, "group")
        person.open("/events?outcome=dead")
        person.click("td a >> nth=0")
        person.unfold("Try a consumer on it")
        person.page.fill("#reason-try", "Does the new release succeed?")
        person.click("button:has-text('and roll back') >> nth=0")
        person.sees("was tried")
        shoot(person, "event")
        person.open(f"/identity/{failed}")
        person.unfold("Erase what is recorded of this person")
        person.page.fill("#reason-erase", "Asked by letter of 27 November")
        shoot(person, "erase")


def main() -> None:
    """Take the pictures into a folder."""
    parser = argparse.ArgumentParser(description="Take the pictures of the console.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=150.0, help="that the calls take")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        sync_playwright() as playwright,
        running(Path(scratch), given.seconds) as (story, address),
    ):
        story.live()
        story.drift()
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        console = Console(address, browser)
        take(console, story, given.folder)
        browser.close()
        assert console.complaints == []


if __name__ == "__main__":
    main()
