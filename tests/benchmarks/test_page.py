import json
from pathlib import Path

import pytest

from benchmarks.page import UnknownPlace, filled
from benchmarks.report import SECTIONS
from tests.benchmarks.results import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
RUN = PAGE.with_suffix("") / "results.json"
PLOTS = ("rates", "batches", "stored", "latency")


def test_the_page_has_a_place_for_every_table() -> None:
    page = filled(PAGE.read_text(), {name: section(RESULTS) for name, section in SECTIONS.items()})

    assert "| Events delivered, a worker for each core | " in page
    assert "Procrastinate + SQLAlchemy" in page


def test_filling_a_page_again_replaces_what_was_there() -> None:
    page = "before\n<!-- begin a -->\n<!-- end a -->\nafter\n"

    once = filled(page, {"a": "old"})

    assert once == "before\n<!-- begin a -->\n\nold\n\n<!-- end a -->\nafter\n"
    assert filled(once, {"a": "new"}) == once.replace("old", "new")


@pytest.mark.parametrize("texts", [{}, {"b": ""}, {"a": "", "b": ""}])
def test_a_page_with_other_places_is_refused(texts: dict[str, str]) -> None:
    with pytest.raises(UnknownPlace):
        filled("<!-- begin a -->\n<!-- end a -->\n", texts)


def test_the_page_shows_every_plot() -> None:
    shown = PAGE.read_text()

    assert all(f"](performance/{plot}.svg)" in shown for plot in PLOTS)


@pytest.mark.skipif(not RUN.exists(), reason="no run was published")
def test_the_page_says_what_the_published_run_said() -> None:
    run = json.loads(RUN.read_text())
    page = PAGE.read_text()

    assert run["size"] == "full"
    assert filled(page, {name: section(run) for name, section in SECTIONS.items()}) == page
