"""Every page of the console on every screen: accessible, small, and with a strict policy."""

import pytest
from playwright.sync_api import Request
from sqlalchemy import text

from kratos_sync.application.missed_webhooks import HOOKS
from tests.domain.people import ADA
from tests.end_to_end.console.lives import SYNC, engine_of, live, lose
from tests.end_to_end.console.using import SCHEMES, WIDTHS, Console, Person, look_at
from tests.suites.reconciling import World

PAGES = {
    "now": "/",
    "failures": "/failures",
    "find": "/identity",
    "identity": f"/identity/{ADA}",
    "events": "/events",
    "kratos": "/kratos",
    "audit": "/audit",
}
NESTED = {
    "group": ("/failures", "td a >> nth=0"),
    "event": ("/events?outcome=dead", "td a >> nth=0"),
    "operation": ("/audit", "td a >> nth=0"),
}
"""Where a link leads to it."""
LARGEST = 60_000
"""Bytes of the first page, with all that it loads."""


@pytest.fixture
def lived(world: World) -> World:
    live(world)
    lose(world)
    return world


def change_something(person: Person) -> None:
    """Leave a row in the audit trail."""
    person.open("/")
    person.unfold("Pause or resume")
    person.send(f"Pause {SYNC}", "its table is locked")
    person.sees("completed")


def open_page(person: Person, name: str) -> None:
    if name in PAGES:
        assert person.open(PAGES[name]) == 200
        assert person.page.url == person.address + PAGES[name]
    elif name in NESTED:
        path, link = NESTED[name]
        person.open(path)
        person.click(link)
        person.page.wait_for_url(lambda url: url != person.address + path)
    else:
        person.open(f"/identity/{ADA}")
        person.unfold("Deliver its events to one consumer again")
        person.send("Count its events, and ask me", "it missed some", consumer=SYNC)
        person.sees("will be delivered to")


@pytest.mark.parametrize("name", [*PAGES, *NESTED, "replay"])
@pytest.mark.usefixtures("lived")
def test_every_page_is_accessible_on_every_screen(console: Console, name: str) -> None:
    with console.person() as person:
        if name in {"audit", "operation"}:
            change_something(person)
        open_page(person, name)
        assert look_at(person.page) == len(WIDTHS) * len(SCHEMES)


@pytest.mark.parametrize(
    ("path", "roles", "status"),
    [
        ("/nowhere", "viewer", 404),
        (f"/identity/{ADA}", "viewer", 404),
        ("/events?trace_id=abc", "viewer", 400),
        ("/", "", 403),
    ],
)
def test_every_error_is_accessible_on_every_screen(
    console: Console, path: str, roles: str, status: int
) -> None:
    with console.person(roles) as person:
        assert person.open(path) == status
        assert look_at(person.page) == len(WIDTHS) * len(SCHEMES)
    # The browser's own line on a page that is not 200.
    (complaint,) = console.complaints
    assert f"status of {status}" in complaint
    console.complaints.clear()


@pytest.mark.parametrize(("width", "dark"), [(375, False), (1440, True)])
@pytest.mark.usefixtures("lived")
def test_every_page_opens_without_scripts(console: Console, width: int, dark: bool) -> None:
    with console.person(scripts=False, width=width, dark=dark) as person:
        change_something(person)
        for name in [*PAGES, *NESTED, "replay"]:
            open_page(person, name)
            assert person.page.locator("h1").is_visible()


def test_what_the_policy_blocks_would_be_noticed(console: Console) -> None:
    with console.person() as person:
        person.open("/")
        person.page.evaluate("document.body.setAttribute('style', 'color: red')")
        person.page.evaluate(
            "() => { const s = document.createElement('script');"
            " s.textContent = 'document.title = 1'; document.body.append(s) }"
        )
        assert person.page.title().startswith("Now")
    assert len(console.complaints) == 2
    assert all("Content Security Policy" in each for each in console.complaints)
    console.complaints.clear()


@pytest.mark.usefixtures("lived")
def test_the_first_page_is_small_with_all_that_it_loads(console: Console) -> None:
    finished: list[Request] = []
    with console.person() as person:
        # A bound method of a list is nothing that Playwright can mark as its own.
        person.page.on("requestfinished", lambda request: finished.append(request))  # noqa: PLW0108
        person.open("/")
        person.page.wait_for_load_state("networkidle")
        sizes = {each.url: each.sizes() for each in finished}
        loaded = {
            url: size["responseHeadersSize"] + size["responseBodySize"]
            for url, size in sizes.items()
        }
    kinds = {url.rpartition(".")[2] for url in loaded if "/static/" in url}
    assert {"css", "js"} <= kinds
    print(f"the first page: {sum(loaded.values()):,} bytes in {len(loaded)} answers")
    assert sum(loaded.values()) < LARGEST, loaded


def test_each_hook_has_a_colour_of_its_own_in_the_plot(console: Console, lived: World) -> None:
    missed = """UPDATE kratos_sync.reconciliations SET unheard = '{"login": 3, "settings": 1}'"""
    with engine_of(lived).begin() as connection:
        connection.execute(text(missed))
    with console.person() as person:
        person.open("/kratos")
        colours = person.page.eval_on_selector_all(
            ".legend rect", "all => all.map(each => getComputedStyle(each).fill)"
        )
        assert len(set(colours)) == len(HOOKS)


@pytest.mark.usefixtures("lived")
def test_an_id_stays_on_one_line_in_tables_on_a_phone(console: Console) -> None:
    with console.person(width=375) as person:
        person.open("/events")
        box = person.page.locator("td .id").first.bounding_box()
        assert box is not None
        assert box["height"] < 30


@pytest.mark.usefixtures("lived")
def test_the_keyboard_is_enough(console: Console) -> None:
    with console.person() as person:
        person.open("/identity")
        keyboard = person.page.keyboard
        keyboard.press("Tab")
        person.page.focus("#known")
        keyboard.type(str(ADA))
        keyboard.press("Enter")
        person.page.wait_for_url(f"**/identity/{ADA}")
        keyboard.press("Tab")
        assert person.page.evaluate("document.activeElement.className") == "skip"
