"""Which fields are named where our copy and Kratos differ."""

import pytest

from domain.differences import differences
from domain.json_values import Json
from tests.domain.people import address, cause, exact, met, minutes, row_of, webhook

PROVED = [address(verified_at=minutes(3))]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, ()),
        ({"state": "inactive"}, ("state",)),
        ({"traits": {"email": "new@example.org"}}, ("traits",)),
        ({"verifiable_addresses": PROVED}, ("verifiable_addresses",)),
        ({"pronouns": "she"}, ("unknown",)),
        ({"metadata_admin": {"plan": "gold"}, "region": "eu"}, ("metadata_admin", "region")),
    ],
)
def test_what_differs_is_named_in_order(changes: dict[str, Json], fields: tuple[str, ...]) -> None:
    row = met(exact())
    before = row_of(row)

    newer = exact(1, **changes)
    assert differences(row, newer, minutes(2)) == tuple(sorted((*fields, "updated_at")))

    assert row_of(row) == before
    assert (row.changed, row.collect_events()) == (frozenset(), [])


def test_what_is_older_than_the_copy_is_no_difference() -> None:
    assert differences(met(exact(5)), exact(1, state="inactive"), minutes(6)) == ()


def test_what_no_webhook_tells_is_a_difference() -> None:
    assert differences(met(webhook()), exact(), minutes(2)) == ("metadata_admin",)


def test_a_tombstone_differs_if_kratos_shows_the_identity_later() -> None:
    row = met(exact())
    row.gone(at=minutes(5), cause=cause(2))
    row.mark_stored()
    assert differences(row, exact(9), minutes(5)) == ()
    assert differences(row, exact(), minutes(6)) == ("deleted_at",)
    assert differences(row, webhook(9), minutes(6)) == ()


def test_whom_we_were_told_to_forget_nothing_brings_back() -> None:
    row = met(exact())
    row.forget(at=minutes(5), cause=cause(2))
    row.mark_stored()
    assert differences(row, exact(9), minutes(6)) == ()
