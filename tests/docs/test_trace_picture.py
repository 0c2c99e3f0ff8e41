"""The picture of a trace is drawn from what a collector really received."""

import json
from typing import Any

from docs.trace_picture import DATA, PICTURE, picture


def spans() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads(DATA.read_text())
    return loaded


def test_the_picture_is_drawn_from_the_spans_that_are_kept() -> None:
    assert PICTURE.read_text() == picture(spans())


def test_it_shows_the_whole_way_with_a_retry_and_a_replay() -> None:
    names = [span["name"] for span in spans()]

    assert names[:3] == [
        "POST /kratos/sync-identity",
        "record kratos_sync.events",
        "process SyncKratosIdentity",
    ]
    assert names.count("process AskKratos") == 3
    assert [span["links"] for span in spans() if span["links"]] == [
        [[spans()[2]["trace_id"], spans()[2]["span_id"]]]
    ]


def test_each_span_is_drawn_once() -> None:
    drawn = picture(spans())

    assert drawn.count('height="14"') == len(spans())
    assert drawn.count("marker-end") == 1
