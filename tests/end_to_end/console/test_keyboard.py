"""A whole action by the keyboard alone: Tab, Enter and the reason, and one sees where one is."""

from tests.domain.people import ADA
from tests.end_to_end.console.lives import DEAD, SYNC, live
from tests.end_to_end.console.using import SCRIPTS, Console, Person
from tests.suites.reconciling import World

MOST_TABS = 60
THINNEST = 2
"""Pixels of an outline, as WCAG 2.2 asks of a focus."""
FOCUSED = """() => {
    const focused = document.activeElement;
    const style = getComputedStyle(focused), place = focused.getBoundingClientRect();
    const middle = [place.x + Math.min(place.width, 40) / 2, place.y + place.height / 2];
    const there = document.elementFromPoint(...middle);
    return {
        name: focused.ariaLabel || focused.labels?.[0]?.textContent || focused.textContent.trim(),
        outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
        differs: style.outlineColor !== getComputedStyle(document.body).backgroundColor,
        isSeen: there !== null && (focused.contains(there) || there.contains(focused)),
    };
}"""


def tab_to(person: Person, name: str) -> None:
    """Press Tab until this has the focus; wherever it is meanwhile, it is seen."""
    passed = []
    for _ in range(MOST_TABS):
        person.page.keyboard.press("Tab")
        focused = person.page.evaluate(FOCUSED)
        assert focused["outline"] >= THINNEST, focused
        assert focused["differs"], focused
        assert focused["isSeen"], focused
        if focused["name"].startswith(name):
            return
        passed.append(focused["name"])
    raise AssertionError(f"{name} is not among {passed}")


def enter(person: Person, name: str, place: str) -> None:
    """Go there by Tab and press Enter, which leads to another page."""
    tab_to(person, name)
    person.page.keyboard.press("Enter")
    person.page.wait_for_url(place)


@SCRIPTS
def test_what_was_asked_for_has_the_focus(console: Console, world: World, scripts: bool) -> None:
    live(world)
    focused = "document.activeElement"
    with console.person(scripts=scripts) as person:
        person.open(f"/identity/{ADA}")
        person.unfold("Show the person's data")
        person.send("Show it", "she asked")
        person.sees("schema_id")
        assert person.page.evaluate(f"{focused}.ariaLabel") == "The person's data"
        person.open("/kratos")
        person.send("Check it", configuration="selfservice: {}")
        person.sees("By what was pasted")
        assert person.page.evaluate(f"{focused}.ariaLabel") == "Coverage"
        person.open(f"/identity/{ADA}")
        person.unfold("Ask Kratos now")
        person.send("Sync identity", " ")
        person.sees("Say why")
        assert person.page.evaluate(f"{focused}.role") == "alert"
        person.page.keyboard.press("Tab")
        assert person.page.evaluate(f"{focused}.textContent") == "Open the page again"
    # The browser's own line on a page that is not 200.
    (complaint,) = console.complaints
    assert "status of 400" in complaint
    console.complaints.clear()


@SCRIPTS
def test_a_canary_is_retried_by_the_keyboard_alone(
    console: Console, world: World, scripts: bool
) -> None:
    live(world)
    with console.person(scripts=scripts) as person:
        person.open("/")
        enter(person, "Failures", "**/failures")
        enter(person, str(DEAD), "**/failures/*")
        tab_to(person, "Why")
        person.page.keyboard.type("fixed by the new release")
        enter(person, f"Retry one of {SYNC}", "**/audit/*")
        person.sees("pending", within="#progress ol")
        world.consume()
        person.sees("succeeded", within="#progress ol")
        enter(person, f"Dead letters of {SYNC}", "**/failures?consumer=*")
        person.sees(f"{DEAD - 1} dead letters in 1 group")
    assert person.clicks == 0
