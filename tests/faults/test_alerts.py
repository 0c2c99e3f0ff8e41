"""Which alert belongs to a fault."""

import pytest

from tests.faults.alerts import Firing, configuration, raised_by, spans

RESTARTED = "KratosSyncProcessRestarted"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], []),
        ([5.0], [(5.0, 5.0)]),
        ([1.0, 2.0, 3.0], [(1.0, 3.0)]),
        ([1.0, 2.0, 10.0, 11.0], [(1.0, 2.0), (10.0, 11.0)]),
    ],
)
def test_samples_without_a_gap_are_one_alert(
    times: list[float], expected: list[tuple[float, float]]
) -> None:
    assert list(spans(times)) == expected


@pytest.mark.parametrize(
    ("firing", "expected"),
    [
        (Firing(RESTARTED, 103.0, 120.0), (RESTARTED, 3.0)),
        (Firing(RESTARTED, 90.0, 120.0), (RESTARTED, 0.0)),
        (Firing(RESTARTED, 80.0, 99.0), None),
        (Firing(RESTARTED, 161.0, 170.0), None),
        (Firing("KratosSyncBrokerDown", 103.0, 120.0), None),
    ],
    ids=["during it", "still from before", "ended before", "long after it", "another alert"],
)
def test_an_alert_belongs_to_a_fault_if_it_is_expected_and_fires_then(
    firing: Firing, expected: tuple[str, float] | None
) -> None:
    assert raised_by("api killed", 100.0, [firing]) == expected


def test_the_first_of_several_alerts_counts() -> None:
    firings = [Firing(RESTARTED, 103.0, 104.0), Firing(RESTARTED, 108.0, 109.0)]
    assert raised_by("api killed", 100.0, firings) == (RESTARTED, 3.0)


def test_a_fault_that_needs_no_alert_raises_none() -> None:
    firings = [Firing(RESTARTED, 103.0, 104.0)]
    assert raised_by("broker wiped", 100.0, firings) is None


def test_each_process_is_scraped_under_its_name() -> None:
    scraped = configuration({"api": 1, "relay": 2})["scrape_configs"]
    assert scraped == [
        {
            "job_name": "kratos-sync",
            "static_configs": [
                {"targets": ["127.0.0.1:1"], "labels": {"instance": "api"}},
                {"targets": ["127.0.0.1:2"], "labels": {"instance": "relay"}},
            ],
        }
    ]
