"""Which fields are named where our copy and Kratos differ."""

import pytest

from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import Json
from kratos_sync.domain.merging import ReceivedWebhook
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
    assert row.differences(newer, at=minutes(70)) == tuple(sorted((*fields, "updated_at")))

    assert row_of(row) == before
    assert (row.changed, row.collect_events()) == (frozenset(), [])


RECOVERY: dict[str, Json] = {"via": "email", "value": "ada@example.org"}


@pytest.mark.parametrize(
    ("kept", "said"), [(10**23, 1e23), (303092600267511250000, 303092600267511253287.557)]
)
def test_a_number_of_an_address_in_another_spelling_is_no_difference(
    kept: float, said: float
) -> None:
    def scored(number: float) -> Identity:
        return exact(
            verifiable_addresses=[address(score=[number])],
            recovery_addresses=[{**RECOVERY, "score": {"it": number}}],
        )

    row = met(scored(kept))

    assert row.differences(scored(said), at=minutes(70)) == ()
    other = row.differences(scored(7), at=minutes(70))
    assert other == ("recovery_addresses", "verifiable_addresses")


def test_what_was_asked_for_before_the_copys_answer_is_no_difference() -> None:
    assert met(exact(5)).differences(exact(9, state="inactive"), at=minutes(59)) == ()


def test_a_copy_that_is_newer_than_kratos_differs() -> None:
    row = met(exact(1), webhook(5, state="inactive"))

    assert row.differences(exact(1), at=minutes(70)) == ("state", "updated_at")


def test_a_webhook_recorded_after_the_question_makes_no_difference() -> None:
    change = webhook(5, state="inactive")
    row = met(exact(1), change)

    later = [ReceivedWebhook(change, minutes(61))]
    assert row.differences(exact(1), at=minutes(60.5), later=later) == ()


def test_what_no_webhook_carries_is_a_difference() -> None:
    assert met(webhook()).differences(exact(), at=minutes(70)) == ("metadata_admin",)


def test_a_tombstone_differs_if_kratos_shows_the_identity_later() -> None:
    row = met(exact())
    row.mark_deleted(at=minutes(65), cause=cause(2))
    row.mark_stored()
    assert row.differences(exact(9), at=minutes(65)) == ()
    assert row.differences(exact(), at=minutes(70)) == ("deleted_at",)
    assert row.differences(webhook(9), at=minutes(70)) == ()


def test_nothing_brings_an_erased_identity_back() -> None:
    row = met(exact())
    row.erase(at=minutes(65), cause=cause(2))
    row.mark_stored()
    assert row.differences(exact(9), at=minutes(70)) == ()
