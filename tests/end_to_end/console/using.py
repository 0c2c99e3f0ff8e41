"""A console in a process, and people who use it in a browser."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import TimeoutError as NotShown

from tests.end_to_end.processes import KRATOS_SYNC
from tests.environment import environment, with_direct_url
from tests.ports import free_port
from tests.waiting import DEADLINE_SECONDS, until

EVERY_ROLE = "viewer,operator,privacy"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
WIDTHS = (375, 1440)
SCHEMES = ("light", "dark")
SCRIPTS = pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
RELOAD_MILLISECONDS = 1_000


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
            env=environment(CONSOLE_ORIGIN=address, **with_direct_url("console", settings)),
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


def _answers(address: str) -> bool:
    try:
        httpx.get(address, trust_env=False)
    except httpx.TransportError:
        return False
    return True


class Person:
    """Somebody who uses the console: clicks are counted, and the browser's complaints are kept."""

    def __init__(self, page: Page, address: str, complaints: list[str], *, scripts: bool) -> None:
        self.page = page
        self.address = address
        self.complaints = complaints
        self.scripts = scripts
        self.clicks = 0
        page.set_default_timeout(DEADLINE_SECONDS * 1_000)

        def note(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                complaints.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))

    def open(self, path: str) -> int:
        """Go to a page by its address: the status of the answer."""
        answer = self.page.goto(self.address + path)
        assert answer is not None
        return answer.status

    def click(self, target: str | Locator) -> None:
        """One click."""
        self.clicks += 1
        (self.page.locator(target) if isinstance(target, str) else target).click()

    def find(self, words: str) -> None:
        """Type these words into the search, and press Enter."""
        self.click("#find")
        self.page.keyboard.type(words)
        self.page.keyboard.press("Enter")

    def unfold(self, text: str) -> None:
        """Open what is folded behind these words."""
        self.click(self.page.locator("summary", has_text=text))

    def send(
        self, button: str, reason: str | None = None, *, twice: bool = False, **fields: Any
    ) -> None:
        """Fill in the form of this button, and press it, or press it twice as the impatient do."""
        pressed = self.page.get_by_role("button", name=button)
        form = self.page.locator("form").filter(has=pressed)
        for name, value in fields.items():
            element = form.locator(f"[name={name}]")
            if element.evaluate("each => each.localName") == "select":
                element.select_option(value)
            else:
                element.fill(value)
        if reason is not None:
            form.locator("[name=reason]").fill(reason)
        self.clicks += 1
        if twice:
            pressed.dblclick()
        else:
            pressed.click()

    def sees(self, text: str, within: str = "main") -> None:
        """Wait until these words are shown; without scripts, by loading the page again."""
        shown = self.page.locator(within, has_text=text).first
        if self.scripts:
            shown.wait_for()
            return

        def is_shown() -> bool:
            try:
                shown.wait_for(timeout=RELOAD_MILLISECONDS)
            except NotShown:
                with suppress(BrowserError):  # the page is just being left for another
                    self.page.reload()
                return False
            return True

        until(is_shown)


@dataclass
class Console:
    """Where a console is, and what browsers complained of while it was used."""

    address: str
    browser: Browser
    complaints: list[str] = field(default_factory=list)

    @contextmanager
    def person(
        self,
        roles: str = EVERY_ROLE,
        *,
        name: str = "ada",
        second_factor: bool = True,
        scripts: bool = True,
        width: int | None = None,
        height: int = 900,
        dark: bool | None = None,
        **more: Any,
    ) -> Iterator[Person]:
        """Somebody whom the proxy in front has signed in.

        Who has no scripts has a phone in the dark, unless something else is said.
        """
        small, large = WIDTHS
        width = width or (large if scripts else small)
        dark = not scripts if dark is None else dark
        signed_in = {
            "X-Forwarded-User": name,
            "X-Forwarded-Groups": roles,
            "X-Forwarded-Second-Factor": "true" if second_factor else "false",
        }
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            java_script_enabled=scripts,
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            extra_http_headers=signed_in,
            **more,
        )
        try:
            yield Person(context.new_page(), self.address, self.complaints, scripts=scripts)
        finally:
            context.close()


def look_at(page: Page) -> int:
    """Check an opened page by axe on every screen: on how many it was."""
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    page.evaluate(AXE_SCRIPT)
    looks = 0
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        beyond = page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert beyond <= 0, f"{page.url} scrolls sideways at {width} pixels"
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # both are literals
            found = AxeResults(
                page.evaluate(
                    "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})",
                    RULES,
                )
            )
            assert found.violations_count == 0, f"{page.url}: {found.generate_report()}"
            looks += 1
    return looks
