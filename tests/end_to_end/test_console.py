"""The console in a real browser: the tasks of its users, by mouse and keyboard, on any screen."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import product
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from sqlalchemy import Engine, text

from kratos_sync.api.http.console.sign_in import ROLES_FIELD
from kratos_sync.application.missed_webhooks import HOOKS
from tests.api.http.console.provider import CLIENT_ID, CLIENT_SECRET, providing
from tests.api.http.sessions.kratos_server import COOKIE, Answer, running_kratos, session
from tests.end_to_end.processes import KRATOS_SYNC
from tests.environment import environment
from tests.infrastructure.ledger.rows import (
    SOMEBODY,
    add_delivery,
    add_event,
    add_identity,
    log_attempt,
)
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

PAGES = ["/", "/failures", "/identity", "/events", "/kratos", "/audit"]
SYNC = "SyncKratosIdentity"
ADDRESS = "dalia@example.org"
VERIFIED = {
    "id": "7a1f0f0e-5b61-4a53-9c4f-0f7e1c1c8a11",
    "value": ADDRESS,
    "via": "email",
    "verified": True,
    "status": "completed",
}
XSS = (
    "<img src=x onerror=\"document.title='broken in'\"><script>document.title='broken in'</script>"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root a browser has no sandbox; it opens nothing but this console.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--disable-gpu", *(["--no-sandbox"] if os.getuid() == 0 else [])],
        )
        yield browser
        browser.close()


class Console:
    """A console that runs, and what the browser complained of while it was used."""

    def __init__(self, address: str, links: Callable[[], list[str]]) -> None:
        """`links` gives those that were printed."""
        self.address = address
        self.links = links
        self.complaints: list[str] = []
        self.clicks = 0

    def watch(self, page: Page) -> None:
        """Note errors, and what the policy has blocked."""

        def note(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.complaints.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.set_default_timeout(DEADLINE_SECONDS * 1_000)

    def click(self, page: Page, selector: str) -> None:
        """One click of a person."""
        self.clicks += 1
        page.click(selector)


@contextmanager
def running_console(
    folder: Path, *options: str, **settings: str
) -> Iterator[tuple[str, Callable[[], str]]]:
    """A console in a process: its address, and what it has printed so far."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = folder / "console.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*KRATOS_SYNC, "console", *options, "--port", str(port)],
            cwd=folder,
            env=environment(CONSOLE_ORIGIN=address, **settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: _answers(address))
        yield address, log.read_text
    finally:
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert "page_failed" not in log.read_text()


@pytest.fixture
def console(database_url: str, broker_url: str, tmp_path: Path) -> Iterator[Console]:
    settings = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
    with running_console(tmp_path, "--link", **settings) as (address, printed):
        yield Console(address, lambda: re.findall(rf"{address}/sign-in/\S+", printed()))


def _answers(address: str) -> bool:
    try:
        httpx.get(address, trust_env=False)
    except httpx.TransportError:
        return False
    return True


@pytest.fixture
def life(engine: Engine) -> UUID:
    """Somebody with events, a dead letter, and an error and a hook that strangers wrote."""
    add_identity(engine, version=3)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE kratos_sync.kratos_identities SET verifiable_addresses = CAST(:a AS jsonb)"
            ),
            {"a": json.dumps([VERIFIED])},
        )
    for minutes in (50, 30):
        event_id = add_event(engine, age=timedelta(minutes=minutes))
        log_attempt(engine, SYNC, event_id, age=timedelta(minutes=minutes))
    add_event(engine, name="identity.registered", source=SYNC, age=timedelta(minutes=49))
    failed = add_event(engine, age=timedelta(minutes=10))
    log_attempt(engine, SYNC, failed, outcome="gave_up", number=12, error=f"ValueError: {XSS}")
    add_delivery(
        engine,
        SYNC,
        failed,
        attempts=12,
        failed_ago=timedelta(minutes=5),
        last_error=f"ValueError: {XSS}",
        error_type="ValueError",
        error_shape=XSS,
    )
    with engine.begin() as connection:
        connection.execute(text("UPDATE kratos_sync.events SET hook = :hook"), {"hook": XSS})
        connection.execute(
            text(
                "INSERT INTO kratos_sync.hooks_heard (label, first_at, last_at, calls)"
                " VALUES ('login', now() - interval '60 d', now() - interval '30 d', 5000),"
                " (:xss, now() - interval '60 d', now(), 5000)"
            ),
            {"xss": XSS},
        )
        connection.execute(
            text(
                "WITH refused AS ("
                " INSERT INTO kratos_sync.reconciliations"
                " (started_at, ended_at, outcome, held, identities, known, unseen, unheard)"
                " VALUES (now(), now(), 'refused: 50 of 100 are not listed, and at most 10 may go',"
                """ 100, 50, 50, 50, '{"login": 3, "settings": 1}') RETURNING id)"""
                " INSERT INTO kratos_sync.unseen_identities SELECT id, :somebody FROM refused"
            ),
            {"somebody": SOMEBODY},
        )
    return SOMEBODY


@contextmanager
def signed_in(
    browser: Browser,
    console: Console,
    *,
    width: int = 1440,
    scripts: bool = True,
    dark: bool = False,
) -> Iterator[Page]:
    """A page of somebody who has used the link."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": 900},
        java_script_enabled=scripts,
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    try:
        page = context.new_page()
        console.watch(page)
        page.goto(console.links()[-1])
        page.click("button:has-text('Sign in')")
        page.wait_for_selector("nav")
        yield page
    finally:
        context.close()


@pytest.mark.parametrize(
    ("scripts", "width", "dark"),
    # Every two of the three together; all eight with CONSOLE_PICTURES, where they are looked at.
    list(product([True, False], [375, 1440], [False, True]))
    if "CONSOLE_PICTURES" in os.environ
    else [(True, 375, True), (True, 1440, False), (False, 375, False), (False, 1440, True)],
)
@pytest.mark.usefixtures("life")
def test_every_page_opens_without_a_complaint_of_the_browser(
    browser: Browser, console: Console, scripts: bool, width: int, dark: bool
) -> None:
    with signed_in(browser, console, width=width, scripts=scripts, dark=dark) as page:
        for path in [*PAGES, f"/identity/{SOMEBODY}"]:
            answer = page.goto(console.address + path)
            assert answer is not None
            assert (answer.status, page.url) == (200, console.address + path)
            assert page.title() != "broken in"
            if scripts:
                overflow = page.evaluate(
                    "document.documentElement.scrollWidth - document.documentElement.clientWidth"
                )
                assert overflow <= 0, f"{path} scrolls sideways"
            if picture := os.environ.get("CONSOLE_PICTURES"):
                name = path.strip("/").partition("/")[0] or "now"
                kind = "dark" if dark else "light"
                Path(picture).mkdir(parents=True, exist_ok=True)
                page.screenshot(path=f"{picture}/{name}-{width}-{kind}.png", full_page=True)
    assert console.complaints == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.usefixtures("life")
def test_no_page_breaks_a_rule_of_accessibility(
    browser: Browser, console: Console, dark: bool
) -> None:
    with signed_in(browser, console, dark=dark) as page:
        for path in [*PAGES, f"/identity/{SOMEBODY}"]:
            page.goto(console.address + path)
            assert page.url == console.address + path
            for summary in page.query_selector_all("summary"):
                summary.click()
            results = Axe().run(
                page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]}
            )
            assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.usefixtures("life")
def test_why_a_persons_address_is_wrong_is_two_clicks_away(
    browser: Browser, console: Console, scripts: bool
) -> None:
    with signed_in(browser, console, scripts=scripts) as page:
        console.click(page, "nav >> text=Identity")
        page.fill("#known", ADDRESS)
        console.click(page, "button:has-text('Find')")
        assert page.url == f"{console.address}/identity/{SOMEBODY}"
        assert ADDRESS not in page.url
        assert "dead letter" in page.inner_text(".timeline")
        assert "ValueError" in page.inner_text(".timeline")
    assert console.clicks <= 3


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.usefixtures("life")
def test_a_consumer_that_fails_since_the_deploy_is_retried_in_three_clicks(
    browser: Browser, console: Console, engine: Engine, scripts: bool
) -> None:
    with signed_in(browser, console, scripts=scripts) as page:
        assert "1 dead letter" in page.inner_text(".attention")
        console.click(page, ".attention a:has-text('Retry or discard')")
        console.click(page, "td a:has-text('ValueError')")
        page.fill("#reason-retry", "fixed by the new release")
        console.click(page, "button:has-text('Retry one')")
        page.wait_for_selector("text=completed")
        assert "retry by" in page.inner_text("main")
        assert "pending" in page.inner_text("#progress ol")
        with engine.begin() as connection:  # what a worker does
            connection.execute(text("DELETE FROM kratos_sync.deliveries"))
        if not scripts:
            page.reload()
        page.wait_for_selector("#progress ol:not(:has-text('pending'))")
    assert console.clicks <= 3
    with engine.connect() as connection:
        left = text("SELECT count(*) FROM kratos_sync.deliveries WHERE failed_at IS NOT NULL")
        assert connection.execute(left).scalar_one() == 0


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.usefixtures("life")
def test_a_person_is_erased_in_three_clicks_from_any_page(
    browser: Browser, console: Console, engine: Engine, scripts: bool
) -> None:
    with signed_in(browser, console, scripts=scripts) as page:
        page.goto(f"{console.address}/failures")
        console.click(page, "#find")
        page.keyboard.type(ADDRESS)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{console.address}/identity/{SOMEBODY}")
        console.click(page, "summary:has-text('Erase what is recorded')")
        page.fill("#reason-erase", "asked by letter")
        console.click(page, "button:has-text('Erase the')")
        page.wait_for_selector("text=completed")
    assert console.clicks <= 3
    with engine.connect() as connection:
        left = text("SELECT count(*) FROM kratos_sync.events WHERE payload::text ~ 'dalia'")
        assert connection.execute(left).scalar_one() == 0


@pytest.mark.usefixtures("life")
def test_a_silent_hook_is_seen_at_once(browser: Browser, console: Console) -> None:
    with signed_in(browser, console) as page:
        assert "No webhook was received from the hook login" in page.inner_text(".attention")
        console.click(page, "a:has-text('silent')")
        assert page.url.endswith("/kratos#hooks")
    assert console.clicks <= 3


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.usefixtures("life")
def test_who_is_not_listed_is_seen_and_decided_about_in_four_clicks(
    browser: Browser, console: Console, scripts: bool
) -> None:
    with signed_in(browser, console, scripts=scripts) as page:
        page.goto(console.address + "/kratos")
        console.click(page, "summary:has-text('Show who they are')")
        page.fill("#reason-names", "an import was undone")
        console.click(page, "button:has-text('Show these 1')")
        assert ADDRESS in page.inner_text("table")
        console.click(page, "summary:has-text('Delete it here')")
        page.fill(f"#reason-{SOMEBODY}", "undone on purpose")
        console.click(page, f"button:has-text('Delete {SOMEBODY} here')")
        page.wait_for_selector("text=failed")  # this console has no KRATOS_ADMIN_URL
        assert "sync by" in page.inner_text("main")
    assert console.clicks <= 4
    assert console.complaints == []


@pytest.mark.usefixtures("life")
def test_each_hook_has_a_colour_of_its_own_in_the_plot(browser: Browser, console: Console) -> None:
    with signed_in(browser, console) as page:
        page.goto(console.address + "/kratos")
        colours = page.eval_on_selector_all(
            ".legend rect", "all => all.map(each => getComputedStyle(each).fill)"
        )
        assert len(set(colours)) == len(HOOKS)


@pytest.mark.usefixtures("life")
def test_an_id_stays_on_one_line_in_tables_on_a_phone(browser: Browser, console: Console) -> None:
    with signed_in(browser, console, width=375) as page:
        page.goto(console.address + "/events")
        box = page.locator("td .id").first.bounding_box()
        assert box is not None
        assert box["height"] < 30


@pytest.mark.usefixtures("life")
def test_the_keyboard_is_enough(browser: Browser, console: Console) -> None:
    with signed_in(browser, console) as page:
        page.goto(console.address + "/identity")
        page.keyboard.press("Tab")
        page.focus("#known")
        page.keyboard.type(str(SOMEBODY))
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/identity/{SOMEBODY}")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"


@pytest.mark.usefixtures("life")
def test_personal_data_is_shown_as_text_whatever_a_stranger_wrote(
    browser: Browser, console: Console
) -> None:
    with signed_in(browser, console) as page:
        page.goto(console.address + "/events?outcome=dead")
        page.click("td a >> nth=0")
        page.click("summary:has-text('Show payload and errors')")
        page.fill("#reason-data", "to see what it is")
        page.click("button:has-text('Show them')")
        assert XSS in page.inner_text("main")
        assert page.title() != "broken in"
    assert console.complaints == []


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_who_signs_out_is_out_and_comes_back_by_a_new_link(
    browser: Browser, console: Console, scripts: bool
) -> None:
    with signed_in(browser, console, width=375, scripts=scripts) as page:
        console.click(page, "button:has-text('Sign out')")
        page.wait_for_url(f"{console.address}/sign-in")
        page.goto(console.address)
        assert page.url == f"{console.address}/sign-in"

        def is_printed() -> bool:
            page.click("button:has-text('Print a new link')")
            return "A new link was printed" in page.inner_text("main")

        until(is_printed)
        page.goto(until(lambda: console.links()[1:])[0])
        page.click("button:has-text('Sign in')")
        page.wait_for_selector("nav")
    assert console.complaints == []


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_who_came_by_kratos_is_led_to_its_logout(
    browser: Browser, database_url: str, broker_url: str, tmp_path: Path, scripts: bool
) -> None:
    context = browser.new_context(java_script_enabled=scripts)
    with (
        running_kratos() as kratos,
        running_console(
            tmp_path,
            DATABASE_URL=database_url,
            BROKER_URL=broker_url,
            CONSOLE_SIGN_IN="kratos",
            KRATOS_PUBLIC_URL=kratos.url,
        ) as (address, _),
    ):
        identity = {**session()["identity"], "metadata_public": {ROLES_FIELD: ["viewer"]}}
        of_viewer = Answer(200, json.dumps(session(identity=identity)).encode())
        logout = Answer(200, json.dumps({"logout_url": f"{kratos.url}/logged-out"}).encode())
        kratos.answers = [of_viewer, logout]
        cookie = {"name": "ory_kratos_session", "value": COOKIE, "url": address}
        context.add_cookies([cookie])  # type: ignore[list-item]  # a typed dict
        page = context.new_page()
        page.set_default_timeout(DEADLINE_SECONDS * 1_000)
        page.goto(f"{address}/audit")
        page.click("button:has-text('Sign out')")
        page.wait_for_url(f"{kratos.url}/logged-out")
        context.close()
    assert "/self-service/logout/browser?" in kratos.paths[1]


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_who_signs_in_on_another_site_comes_back_to_the_page_he_wanted(
    browser: Browser, database_url: str, broker_url: str, tmp_path: Path, scripts: bool
) -> None:
    settings = {"DATABASE_URL": database_url, "BROKER_URL": broker_url, "CONSOLE_SIGN_IN": "oidc"}
    with providing(host="localhost") as provider:
        settings["CONSOLE_OIDC_ISSUER"] = provider.issuer
        settings["CONSOLE_OIDC_CLIENT_ID"] = CLIENT_ID
        settings["CONSOLE_OIDC_CLIENT_SECRET"] = CLIENT_SECRET
        with running_console(tmp_path, **settings) as (address, _):
            console = Console(address, list)
            context = browser.new_context(java_script_enabled=scripts)
            page = context.new_page()
            console.watch(page)
            page.goto(f"{address}/failures")
            page.click("a:has-text('Sign in')")
            page.click("button:has-text('Let me in')")
            page.wait_for_url(f"{address}/failures")
            # A link on another site leads in too.
            page.goto(f"{provider.issuer}/links?to={address}/audit")
            page.click("a:has-text('To the console')")
            page.wait_for_url(f"{address}/audit")
            assert page.inner_text(".who").startswith("ada")
            context.close()
    assert console.complaints == []
