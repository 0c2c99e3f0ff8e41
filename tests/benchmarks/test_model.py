"""The model of what a rate takes: its parts add up, and the weakest is named."""

import json
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.model import (
    BUSY,
    Commits,
    Cost,
    MissingFigure,
    Site,
    as_json,
    checked,
    cost_of,
    delivered,
    everything,
    from_json,
    full_at,
    needs,
)
from benchmarks.page import filled
from benchmarks.report.scaling import PAGE, PARTS, read, sections

COST = Cost(
    api=100,
    relay=10,
    worker=50,
    recording=20,
    delivering=30,
    broker=5,
    webhooks_per_commit=20,
    deliveries_per_claim=500,
    deliveries_per_batch=100,
    deliveries=2,
    wal_bytes=2_000,
    disk_bytes=1_000,
    rows=4,
)
COMMITS = Commits(
    milliseconds=1, per_second={"1": 1_000, "16": 8_000}, per_fsync={"1": 1, "16": 10}
)
SITE = Site("a site", cores=8, wal_megabytes=100, fsync_milliseconds=1, purged_rows=1_000_000)


def test_the_cores_of_a_rate_are_the_sum_of_what_its_webhooks_cost() -> None:
    at_ten_thousand = needs(COST, 10_000)

    assert at_ten_thousand["cores"] == {
        "api": 1.0,
        "relay": 0.1,
        "worker": 0.5,
        "postgres": 0.5,
        "broker": 0.1,
    }
    assert at_ten_thousand["processes"] == {"api": 2, "relay": 1, "worker": 1}
    assert at_ten_thousand["wal_megabytes_per_second"] == 20
    assert at_ten_thousand["disk_gigabytes_per_day"] == 864


def test_a_webhooks_commits_are_its_share_of_a_group_and_of_its_deliveries_batches() -> None:
    assert COST.commits == pytest.approx(1 / 20 + 2 / 500 + 2 / 100)
    assert needs(COST, 10_000)["commits_per_second"] == 740


def test_each_part_is_full_when_it_is_as_busy_as_planned_and_the_weakest_is_named_first() -> None:
    full = full_at(COST, COMMITS, SITE)

    assert full == {
        "log": round(BUSY * 100e6 / 2_000),
        "commits": round(BUSY * 1_000 * 10 / 0.074),
        "cores": round(BUSY * 8e6 / 50),
        "purge": round(1_000_000 / 4),
    }
    assert next(iter(full)) == "log"
    assert list(full.values()) == sorted(full.values())


@pytest.mark.parametrize(
    ("weak", "part"),
    [
        ({"cores": 1}, "cores"),
        ({"wal_megabytes": 1}, "log"),
        ({"fsync_milliseconds": 50}, "commits"),
        ({"purged_rows": 1_000}, "purge"),
    ],
)
def test_the_part_that_is_weak_gives_first(weak: dict[str, Any], part: str) -> None:
    assert next(iter(full_at(COST, COMMITS, replace(SITE, **weak)))) == part


def test_a_rate_is_limited_by_the_workers_and_then_by_the_cores() -> None:
    assert delivered(COST, cores=8, workers=1) == pytest.approx(1e6 / 50)
    assert delivered(COST, cores=8, workers=2) == pytest.approx(2e6 / 50)
    assert delivered(COST, cores=2, workers=4) == pytest.approx(2e6 / 95)
    assert everything(COST, cores=8, workers=4) == pytest.approx(1e6 / 100)
    assert everything(COST, cores=1, workers=4) == pytest.approx(1e6 / 215)


def test_the_costs_are_those_of_the_published_run_and_its_rates_are_predicted_within_a_third() -> (
    None
):
    results = read("results")
    cost = cost_of(results, wal_bytes=3_000, disk_bytes=2_000, rows=2)

    assert cost.api == results["take_in"]["ours"]["cpu_microseconds"]["api"]
    assert 1 < cost.webhooks_per_commit <= 256
    assert 1 < cost.deliveries_per_batch <= 200
    assert all(abs(row["error_percent"]) < 33 for row in checked(cost, results))


def test_a_run_without_the_statements_that_are_counted_is_refused() -> None:
    results = read("results")
    results["deliver"]["statements"] = []

    with pytest.raises(MissingFigure, match="deliver has no statement that begins with"):
        cost_of(results, wal_bytes=3_000, disk_bytes=2_000, rows=2)


def test_what_is_published_is_read_as_it_was_measured() -> None:
    assert from_json(json.loads(json.dumps(as_json(COST, COMMITS)))) == (COST, COMMITS)


def test_the_page_says_what_the_published_runs_said() -> None:
    page = PAGE.read_text()

    texts = sections(read("scaling"), read("large"), read("reconciling"))

    assert filled(page, texts) == page


def test_what_was_published_for_each_rate_follows_from_the_published_costs() -> None:
    published = read("scaling")
    cost, _ = from_json(published)

    assert [needs(cost, of["rate"]) for of in published["needs"]] == published["needs"]


def test_the_plot_names_the_parts_of_the_table() -> None:
    plot = (PAGE.parent / "performance" / "scaling.svg").read_text()

    assert all(name in plot for name in PARTS.values())
