"""How our copy takes in snapshots: what is newer, what is absent, what is exact."""

from datetime import datetime
from itertools import permutations

import pytest

from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, Json
from tests.domain.people import (
    ADAS_ADDRESS,
    LOYAL,
    Known,
    address,
    consumed,
    document,
    exact,
    known,
    met,
    minutes,
    partial,
    row_of,
    webhook,
    without,
    written,
)


def both_ways(one: Identity, other: Identity) -> dict[str, str]:
    """The row of two snapshots, which is the same whichever is consumed first."""
    return in_any_order(one, other)


def in_any_order(*snapshots: Identity) -> dict[str, str]:
    """The row of snapshots that were known in this order, in whichever they are consumed."""
    in_order = known(*snapshots)
    rows = [row_of(consumed(order)) for order in permutations(in_order)]
    assert all(row == rows[0] for row in rows)
    return rows[0]


def test_the_newer_snapshot_stands() -> None:
    row = met(webhook(5, state="inactive"), webhook(4, state="active"), webhook(3))

    assert (row.state, row.updated_at) == ("inactive", minutes(5))
    both_ways(webhook(5, state="inactive"), webhook(4))


def test_what_a_newer_snapshot_leaves_out_stays_as_it_was() -> None:
    row = met(exact(0, metadata_admin={"plan": "gold"}), webhook(5))

    assert row.metadata_admin == {"plan": "gold"}
    assert row.part_recency == {"metadata_admin": [written(minutes(0)), True]}


def test_a_part_that_only_an_older_snapshot_has_is_taken_from_it_though_it_comes_late() -> None:
    answer, late = known(exact(0, metadata_admin={"plan": "gold"}), webhook(5))

    row = consumed([late, answer])

    assert row.metadata_admin == {"plan": "gold"}
    assert row.updated_at == minutes(5)


def test_a_row_of_one_snapshot_needs_no_bookkeeping() -> None:
    row = met(webhook())

    assert (row.part_recency, row.exact_at, row.exact_numbers) == ({}, None, None)


def test_a_part_is_as_old_as_the_snapshot_that_had_it() -> None:
    newest_without_addresses = Identity.from_kratos(without(document(9), "verifiable_addresses"))
    late = webhook(4, verifiable_addresses=[address("ada@king.org")])

    row = met(webhook(1), newest_without_addresses, late)

    assert row.verifiable_addresses == late.verifiable_addresses
    assert row.part_recency == {"verifiable_addresses": [written(minutes(4)), False]}


def test_a_snapshot_without_a_time_only_fills_in_what_was_never_sent() -> None:
    row = met(partial(3, state="active"), partial(None, state="inactive", region="eu"))

    assert (row.state, row.region, row.updated_at) == ("active", "eu", minutes(3))
    both_ways(partial(3, state="active"), partial(None, state="inactive", region="eu"))


def test_null_that_was_sent_is_not_filled_in_by_an_older_snapshot() -> None:
    row = met(partial(3, external_id=None), partial(1, external_id="crm-17", region="eu"))

    assert (row.external_id, row.region) == (None, "eu")


def test_null_traits_are_not_traits_that_were_never_sent() -> None:
    assert met(partial()).traits is ABSENT
    assert met(partial(traits=None)).traits is None


@pytest.mark.parametrize("field", ["external_id", "region"])
def test_what_a_whole_snapshot_leaves_out_because_it_is_empty_is_none(field: str) -> None:
    row = met(webhook(0, **{field: "crm-17"}), webhook(1))

    assert getattr(row, field) is None
    both_ways(webhook(0, **{field: "crm-17"}), webhook(1))


def test_what_a_partial_snapshot_leaves_out_stays() -> None:
    row = met(webhook(0, external_id="crm-17"), partial(1, state="inactive"))

    assert row.external_id == "crm-17"


def test_a_whole_snapshot_without_a_change_of_state_means_there_was_none() -> None:
    row = met(webhook(), Identity.from_kratos(without(document(1), "state_changed_at")))

    assert row.state_changed_at is None


def test_addresses_that_an_exact_snapshot_leaves_out_are_gone() -> None:
    nowhere = without(document(1), "verifiable_addresses", "recovery_addresses")

    row = met(webhook(), Identity.from_admin_api({**nowhere, "metadata_admin": None}))

    assert row.verifiable_addresses == row.recovery_addresses == ()


def test_newer_addresses_replace_the_older_set() -> None:
    verified = webhook(0, verifiable_addresses=[address(verified_at=minutes(1))])
    moved = webhook(2, verifiable_addresses=[address("ada@king.org")])

    row = met(verified, moved)

    assert row.verifiable_addresses == moved.verifiable_addresses
    both_ways(verified, moved)


def test_an_older_report_never_undoes_a_verification() -> None:
    verified = webhook(0, verifiable_addresses=[address(verified_at=minutes(1))])

    row = met(verified, webhook(0))

    assert row.verifiable_addresses == verified.verifiable_addresses
    both_ways(verified, webhook(0))


def test_equally_recent_addresses_unite() -> None:
    home = webhook(verifiable_addresses=[address("ada@home.org")])
    work = webhook(
        verifiable_addresses=[address("ada@work.org"), address("ada@home.org", status="pending")]
    )

    row = met(home, work)

    assert row.verifiable_addresses is not ABSENT
    assert [(each.value, each.status) for each in row.verifiable_addresses] == [
        ("ada@home.org", "sent"),
        ("ada@work.org", "sent"),
    ]
    both_ways(home, work)


def test_recovery_addresses_unite_too() -> None:
    one: Json = [{"id": ADAS_ADDRESS, "via": "email", "value": "ada@home.org"}]
    other: Json = [{"id": ADAS_ADDRESS, "via": "sms", "value": "+36"}]

    row = met(webhook(recovery_addresses=one), webhook(recovery_addresses=other))

    assert row.recovery_addresses is not ABSENT
    assert len(row.recovery_addresses) == 2


def test_a_verification_that_a_webhook_reported_outlasts_an_exact_snapshot_before_it() -> None:
    verified = webhook(0, verifiable_addresses=[address(verified_at=minutes(1))])

    row = met(exact(0), verified)

    assert row.verifiable_addresses == verified.verifiable_addresses
    both_ways(exact(0), verified)


def test_of_two_equally_recent_values_the_exact_one_stands() -> None:
    row = met(webhook(traits={"z": "z"}), exact(traits={"a": "a"}), webhook(traits={"z": "z"}))

    assert row.traits == {"a": "a"}
    both_ways(exact(traits={"a": "a"}), webhook(traits={"z": "z"}))


def test_of_two_equally_recent_values_of_webhooks_one_stands_in_any_order() -> None:
    assert both_ways(webhook(traits={"a": 1}), webhook(traits={"a": 2}))["traits"] == '{"a":2}'
    assert both_ways(webhook(traits={"a": 2}), webhook(traits={"a": 1}))["traits"] == '{"a":2}'


def test_of_two_answers_to_one_question_one_stands_in_any_order() -> None:
    one, other = (Known(exact(traits={"a": number}), minutes(60)) for number in (1, 2))

    assert row_of(consumed([one, other])) == row_of(consumed([other, one]))


def test_an_unknown_field_is_followed_like_any_other() -> None:
    row = met(webhook(2, pronouns="she"), webhook(1, pronouns="it", shoes=7), webhook(3))

    assert row.unknown == {"pronouns": "she", "shoes": 7}
    assert row.part_recency == {
        "pronouns": [written(minutes(2)), False],
        "shoes": [written(minutes(1)), False],
    }


def test_a_field_of_next_year_may_be_called_like_one_of_our_columns() -> None:
    row = met(webhook(deleted_at="now", version=7), webhook(1, version=8, part_recency={}))

    assert row.unknown == {"deleted_at": "now", "version": 8, "part_recency": {}}
    assert (row.deleted_at, row.version) == (None, 2)


def numbered(number: float, updated: float, *, exactly: bool = False, **more: Json) -> Identity:
    said = exact if exactly else webhook
    return said(updated, traits={"loyalty_number": number}, **more)


def number_of(*snapshots: Identity) -> object:
    traits = met(*snapshots).traits
    assert isinstance(traits, dict)
    return traits["loyalty_number"]


@pytest.mark.parametrize("updated", [0, 5, 9])
def test_a_rounded_number_never_spoils_an_exact_one(updated: float) -> None:
    answer, rounded = numbered(LOYAL, 5, exactly=True), numbered(2**53, updated)

    assert number_of(answer, rounded) == number_of(rounded, answer) == LOYAL
    both_ways(answer, rounded)
    both_ways(rounded, answer)


def test_a_webhook_that_says_the_number_as_a_double_changes_nothing() -> None:
    row = met(numbered(LOYAL, 5, exactly=True))

    row.update(numbered(2**53, 5), at=minutes(66), cause=row.id)

    assert (row.version, row.changed, row.collect_events()) == (1, frozenset(), [])


def test_a_number_that_has_changed_is_taken_from_the_webhook() -> None:
    assert number_of(numbered(LOYAL, 5, exactly=True), numbered(2**60, 6)) == 2**60


def test_a_webhooks_number_is_cut_to_the_double_that_it_must_have_been() -> None:
    assert number_of(numbered(LOYAL, 0)) == 2**53


def test_a_newer_register_corrects_what_an_older_one_had_refined() -> None:
    old, new = numbered(LOYAL, 1, exactly=True), numbered(2**53, 2, exactly=True)
    latest = numbered(2**53, 9)

    assert number_of(old, new, latest) == 2**53
    in_any_order(old, new, latest)
    in_any_order(old, latest, new)


def test_an_older_register_corrects_nothing() -> None:
    old, new = known(numbered(LOYAL, 1, exactly=True), numbered(2**53, 2, exactly=True))

    row = consumed([new, old])

    assert (row.exact_at, row.exact_numbers) == (
        minutes(2),
        {"/traits/loyalty_number": 2**53},
    )


def test_two_registers_of_one_question_keep_the_larger_number_of_each_place() -> None:
    low, high = (Known(numbered(number, 5, exactly=True), minutes(60)) for number in (2**53, LOYAL))

    row = row_of(consumed([low, high]))
    assert row["exact_numbers"] == f'{{"/traits/loyalty_number":{LOYAL}}}'
    assert row_of(consumed([high, low])) == row


def test_a_register_does_not_sway_which_of_two_equally_recent_numbers_stands() -> None:
    answer = numbered(10**17 - 1, 0, exactly=True)
    rounded, other = numbered(10**17, 5), numbered(10**17 - 16, 5)

    row = in_any_order(answer, rounded, other)

    assert row["traits"] == f'{{"loyalty_number":{10**17 - 16}}}'


def test_a_number_in_public_metadata_and_in_an_unknown_field_stays_exact_too() -> None:
    row = met(
        exact(metadata_public=[LOYAL], shoes={"size": LOYAL}),
        webhook(1, metadata_public=[2**53], shoes={"size": 2**53}),
    )

    assert (row.metadata_public, row.unknown) == ([LOYAL], {"shoes": {"size": LOYAL}})


@pytest.mark.parametrize("minutes_later", [0, 1])
@pytest.mark.parametrize("kind", ["verifiable_addresses", "recovery_addresses"])
def test_a_number_in_a_new_field_of_an_address_stays_exact_too(
    kind: str, minutes_later: float
) -> None:
    number = 2**53 + 3  # rounded up, so that the rounded one sorts after it
    shown, told = ([address(weight=[each])] for each in (number, 2**53 + 4))

    row = met(exact(**{kind: shown}), webhook(minutes_later, **{kind: told}))

    (kept,) = getattr(row, kind)
    assert kept.unknown["weight"] == [number]


def test_a_number_too_large_for_a_double_stays_exact() -> None:
    row = met(numbered(10**400, 0, exactly=True), numbered(1.5, -1))

    assert row.traits == {"loyalty_number": 10**400}


def test_one_time_in_two_precisions_changes_nothing() -> None:
    row = met(webhook(state_changed_at="2026-11-23T11:59:59.674221999Z"))

    again = webhook(state_changed_at="2026-11-23T11:59:59.674221Z")
    row.update(again, at=minutes(66), cause=row.id)

    assert (row.version, row.changed) == (1, frozenset())
    assert isinstance(row.state_changed_at, datetime)


def test_an_answer_whose_time_is_not_believed_is_no_more_exact_when_that_time_has_come() -> None:
    recorded = [
        Known(exact(2, state="a"), minutes(-5)),
        Known(webhook(2, state="c"), minutes(1)),
        Known(webhook(2, state="b"), minutes(1.5)),
    ]

    rows = [row_of(consumed(order)) for order in permutations(recorded)]

    assert all(row == rows[0] for row in rows)
    assert rows[0]["state"] == "'c'"
