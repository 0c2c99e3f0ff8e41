"""Signing in and out of the console in a browser, in each way that leads through one."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from kratos_sync.api.http.console.sign_in import ROLES_FIELD
from tests.api.http.console.provider import CLIENT_ID, CLIENT_SECRET, providing
from tests.api.http.sessions.kratos_server import COOKIE, Answer, running_kratos, session
from tests.end_to_end.console.conftest import Served
from tests.end_to_end.console.using import (
    SCHEMES,
    SCRIPTS,
    WIDTHS,
    Console,
    look_at,
    running_console,
)
from tests.waiting import until

LOOKS = len(WIDTHS) * len(SCHEMES)
ONE_LINE = 60
"""Pixels: a header with two lines is higher."""


@pytest.fixture
def settings(served: Served, broker_url: str) -> dict[str, str]:
    return {"DATABASE_URL": served.database_url, "BROKER_URL": broker_url}


@pytest.fixture(scope="module")
def printing(
    served: Served, broker_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Callable[[], str]]]:
    """A console that prints links."""
    folder = tmp_path_factory.mktemp("links")
    settings = {"DATABASE_URL": served.database_url, "BROKER_URL": broker_url}
    with running_console(folder, "--link", **settings) as running:
        yield running


@SCRIPTS
def test_who_came_by_a_new_link_signs_out_and_is_out(
    browser: Browser, printing: tuple[str, Callable[[], str]], scripts: bool
) -> None:
    address, printed = printing
    console = Console(address, browser)

    def links() -> list[str]:
        return re.findall(rf"{address}/sign-in/\S+", printed())

    with console.person(width=375, scripts=scripts) as person:
        page, before = person.page, len(links())
        person.open("/sign-in")
        if scripts:
            assert look_at(page) == LOOKS

        def is_printed() -> bool:
            person.click("button:has-text('Print a new link')")
            return "A new link was printed" in page.inner_text("main")

        until(is_printed)
        page.goto(until(lambda: links()[before:])[0])
        if scripts:
            assert look_at(page) == LOOKS
        person.click("button:has-text('Sign in')")
        page.wait_for_selector("nav")
        for wide in (1200, 1440):
            page.set_viewport_size({"width": wide, "height": 900})
            assert header_of(page) < ONE_LINE, wide
        page.set_viewport_size({"width": 375, "height": 900})
        person.click("button:has-text('Sign out')")
        page.wait_for_url(f"{address}/sign-in")
        person.open("/")
        assert page.url == f"{address}/sign-in"
    assert console.complaints == []


def test_a_link_that_was_used_is_refused_on_a_page_that_everybody_can_read(
    browser: Browser, printing: tuple[str, Callable[[], str]]
) -> None:
    console = Console(printing[0], browser)
    with console.person() as person:
        person.open("/sign-in/of-no-worth")
        person.click("button:has-text('Sign in')")
        person.sees("This link was used already")
        assert look_at(person.page) == LOOKS
    assert ["status of 403" in each for each in console.complaints] == [True]


def header_of(page: Page) -> float:
    """How high the header is."""
    box = page.locator("header").bounding_box()
    assert box is not None
    return box["height"]


@SCRIPTS
def test_who_came_by_kratos_is_led_to_its_logout(
    browser: Browser, settings: dict[str, str], tmp_path: Path, scripts: bool
) -> None:
    with (
        running_kratos() as kratos,
        running_console(
            tmp_path, CONSOLE_SIGN_IN="kratos", KRATOS_PUBLIC_URL=kratos.url, **settings
        ) as (address, _),
        Console(address, browser).person(scripts=scripts) as person,
    ):
        identity = {**session()["identity"], "metadata_public": {ROLES_FIELD: ["viewer"]}}
        of_viewer = Answer(200, json.dumps(session(identity=identity)).encode())
        logout = Answer(200, json.dumps({"logout_url": f"{kratos.url}/logged-out"}).encode())
        kratos.answers = [of_viewer, logout]
        cookie = {"name": "ory_kratos_session", "value": COOKIE, "url": address}
        person.page.context.add_cookies([cookie])  # type: ignore[list-item]  # a typed dict
        person.open("/audit")
        # The name is the identity's id, and the longest there is.
        for width in (1200, 1440):
            person.page.set_viewport_size({"width": width, "height": 900})
            assert header_of(person.page) < ONE_LINE, width
        person.click("button:has-text('Sign out')")
        person.page.wait_for_url(f"{kratos.url}/logged-out")
    assert "/self-service/logout/browser?" in kratos.paths[1]


@SCRIPTS
def test_who_signs_in_on_another_site_comes_back_to_the_page_he_wanted(
    browser: Browser, settings: dict[str, str], tmp_path: Path, scripts: bool
) -> None:
    settings["CONSOLE_SIGN_IN"] = "oidc"
    with providing(host="localhost") as provider:
        settings["CONSOLE_OIDC_ISSUER"] = provider.issuer
        settings["CONSOLE_OIDC_CLIENT_ID"] = CLIENT_ID
        settings["CONSOLE_OIDC_CLIENT_SECRET"] = CLIENT_SECRET
        with running_console(tmp_path, **settings) as (address, _):
            console = Console(address, browser)
            with console.person(scripts=scripts) as person:
                page = person.page
                person.open("/failures")
                if scripts:
                    assert look_at(page) == LOOKS
                person.click("a:has-text('Sign in')")
                person.click("button:has-text('Let me in')")
                page.wait_for_url(f"{address}/failures")
                # A link on another site leads in too.
                page.goto(f"{provider.issuer}/links?to={address}/audit")
                person.click("a:has-text('To the console')")
                page.wait_for_url(f"{address}/audit")
                assert page.inner_text(".who").startswith("ada")
    assert console.complaints == []
