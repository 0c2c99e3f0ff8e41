"""The figures that the console's page gives of its tests are what the tests try."""

from tests.api.http.console.test_roles import CHECKS, MAY, VISITORS
from tests.docs.pages import DOCS
from tests.end_to_end.console.test_escaping import CANARIES, SHOWN


def test_the_page_of_the_console_counts_what_its_tests_try() -> None:
    page = " ".join((DOCS / "console.md").read_text().split())
    shown = sum(len(names.split(", ")) for names in SHOWN.values())
    assert f"{len(MAY)} forms as {len(VISITORS)} visitors, {CHECKS} checks" in page
    assert f"{len(CANARIES)} in all: {len(SHOWN)} pages show them {shown} times" in page
