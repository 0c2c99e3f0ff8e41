"""Kratos runs a method's own hooks, and those directly under `after` only where it has none."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kratos_sync.application.kratos_config.hooks import (
    ALL_METHODS,
    METHODS,
    Place,
    configuration,
)
from kratos_sync.application.kratos_config.templates import inline
from tests.application.kratos_config.reading import Checked, checked

PLACES = [Place(flow, method) for flow in METHODS for method in (None, *METHODS[flow])]
URL = "http://api:8000/kratos/sync-identity"
OTHER = {
    "hook": "web_hook",
    "config": {"url": "http://crm/people", "method": "POST", "body": inline()},
}
ALL_ON = {
    **{method: {"enabled": True} for method in ALL_METHODS},
    "code": {"passwordless_enabled": True},
    "webauthn": {"enabled": True, "config": {"passwordless": True}},
}


def everything_on() -> dict[str, Any]:
    wanted = (URL, "X-Api-Key", "@KEY@", inline(), ALL_METHODS)
    printed: dict[str, Any] = json.loads(json.dumps(configuration(*wanted, with_session=True)))
    selfservice = printed["selfservice"]
    selfservice["methods"] = ALL_ON
    for flow in ("verification", "recovery"):
        selfservice["flows"][flow]["enabled"] = True
    return printed


def hooks_at(printed: dict[str, Any], place: Place) -> list[dict[str, Any]]:
    node = printed
    for key in place.keys:
        node = node[key]
    hooks: list[dict[str, Any]] = node  # type: ignore[assignment]  # the last key is a list's
    return hooks


def check_of(printed: dict[str, Any]) -> Checked:
    return checked(json.dumps(printed, indent=1))


def test_what_we_print_covers_every_place() -> None:
    found = check_of(everything_on())

    assert found.rules == []
    assert len(found.report.coverage) == len(PLACES) - 3
    assert all(covered.is_on and covered.is_covered for covered in found.report.coverage)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_place_that_loses_our_hook_and_keeps_another_is_found_with_its_line(place: Place) -> None:
    printed = everything_on()
    hooks_at(printed, place)[:] = [OTHER]

    found = check_of(printed)

    if place.method is None and METHODS[place.flow]:
        assert found.report.passed, "every method has hooks of its own"
        return
    assert found.uncovered() == {str(place)}
    (line,) = found.lines("not-heard")
    lines = json.dumps(printed, indent=1).splitlines()
    assert '"hooks": [' in lines[line - 1]
    assert "http://crm/people" in lines[line + 3]


@settings(deadline=None, max_examples=150)
@given(
    gone=st.sets(st.sampled_from(PLACES), min_size=1),
    kept=st.sets(st.sampled_from(PLACES)),
)
def test_a_check_fails_if_and_only_if_a_place_is_not_covered(
    gone: set[Place], kept: set[Place]
) -> None:
    """Ours is gone from some places, and another hook is left at some of them."""
    printed = everything_on()
    for place in gone:
        hooks_at(printed, place)[:] = [OTHER] if place in kept else []
    missed = {
        str(place)
        for place in PLACES
        if (place.method or not METHODS[place.flow])
        and place in gone
        and (place in kept or Place(place.flow) in gone)
    }

    found = check_of(printed)

    assert found.uncovered() == missed
    assert found.report.passed is (not missed)
    assert bool(found.lines("not-heard")) is bool(missed)


def test_removing_a_hook_that_nothing_stands_in_for_fails_the_check() -> None:
    for place in PLACES:
        printed = everything_on()
        hooks_at(printed, Place(place.flow)).clear()
        if place.method is not None:
            del printed["selfservice"]["flows"][place.flow]["after"][place.method]
        elif METHODS[place.flow]:
            continue

        found = check_of(printed)

        assert not found.report.passed
        assert str(place) in found.uncovered()


@pytest.mark.parametrize(
    ("methods", "flow_is_on", "on"),
    [
        ({}, {}, {"registration.after.password", "login.after.password"}),
        ({"password": {"enabled": False}}, {}, set()),
        ({"password": {"enabled": False}, "code": {"enabled": True}}, {}, set()),
        (
            {"password": {"enabled": False}, "code": {"passwordless_enabled": True}},
            {},
            {"registration.after.code", "login.after.code"},
        ),
        (
            {"password": {"enabled": False}, "code": {"mfa_enabled": True}},
            {},
            {"login.after.code"},
        ),
        (
            {"password": {"enabled": False}, "webauthn": {"enabled": True}},
            {},
            {"login.after.webauthn"},
        ),
        ({}, {"registration": {"enabled": False}}, {"login.after.password"}),
        (
            {"password": {"enabled": False}},
            {"verification": {"enabled": True}, "recovery": {"enabled": True}},
            {"verification.after", "recovery.after"},
        ),
    ],
)
def test_what_is_off_is_only_noted(
    methods: dict[str, Any], flow_is_on: dict[str, Any], on: set[str]
) -> None:
    found = checked(json.dumps({"selfservice": {"methods": methods, "flows": flow_is_on}}))

    assert {place for place in found.uncovered() if not place.startswith("settings")} == on
    assert "not-heard-if-on" in found


def test_without_hooks_directly_under_after_a_later_method_is_not_covered() -> None:
    printed = everything_on()
    del printed["selfservice"]["flows"]["login"]["after"]["hooks"]

    assert check_of(printed).rules == ["no-common-hook"]
