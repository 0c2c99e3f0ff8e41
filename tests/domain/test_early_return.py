"""The early return for stale snapshots gives what the rule gives without it."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kratos_sync.domain import merging
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import Json, same
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.domain.merging import merge
from tests.domain.people import (
    ADA,
    ALWAYS_SENT,
    LOYAL,
    NOON,
    address,
    cause,
    document,
    exact,
    met,
    minutes,
    partial,
    webhook,
    without,
)
from tests.domain.test_convergence import EXAMPLES, FIELDS, TEXTS
from tests.domain.test_recordings import CALLS, LISTING, WEBHOOKS

LATE = minutes(10_000_000)

INSTANTS = ["2026-11-23T12:00:01Z", "2026-11-23T12:00:01.5Z", "2026-11-23T12:00:01.500000999Z"]
TIMES = st.sampled_from([None, *INSTANTS, "2026-11-23T14:00:02+02:00", "0001-01-01T00:00:00Z"])
NUMBERS = [2**53 + 1, 2**53, 1e17, 10**17, 10**17 - 1, 10**400, -(2**64) - 1, 0.1, 1, 1.0, True]
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.sampled_from([*NUMBERS, "Ada"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("na/~"), inner),
    max_leaves=4,
)
MORE: dict[str, st.SearchStrategy[Json]] = {
    **FIELDS,
    "schema_url": TEXTS,
    "region": TEXTS,
    "traits": VALUES,
    "metadata_public": VALUES,
    "pronouns": VALUES,
    "deleted_at": VALUES,
    "created_at": TIMES,
    "updated_at": TIMES,
    "state_changed_at": TIMES,
}


def person(*always: str, never: str = "") -> st.SearchStrategy[dict[str, Json]]:
    return st.fixed_dictionaries(
        {"id": st.just(str(ADA)), **{name: MORE[name] for name in always}},
        optional={name: value for name, value in MORE.items() if name not in {*always, never}},
    )


snapshots = st.one_of(
    person(*ALWAYS_SENT, never="metadata_admin"),
    person(*ALWAYS_SENT, "schema_url", "verifiable_addresses", never="metadata_admin"),
    person(),
).map(Identity.from_kratos) | st.one_of(person(*ALWAYS_SENT, "metadata_admin"), person()).map(
    Identity.from_admin_api
)


def by_the_whole_rule(row: KratosIdentity, snapshot: Identity) -> dict[str, object]:
    """What merging gives where nothing is returned early."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_is_stale", lambda *_: False)
        return merge(row, snapshot, LATE)


def assert_early_return_is_right(row: KratosIdentity, snapshot: Identity) -> dict[str, object]:
    """Give what the snapshot changes: the same with the early return and without it."""
    changes, every = merge(row, snapshot, LATE), by_the_whole_rule(row, snapshot)
    assert changes.keys() == every.keys()
    for name, value in changes.items():
        assert same(value, every[name]), name
        assert type(value) is type(every[name])
    return changes


@settings(max_examples=EXAMPLES or 100, deadline=None)
@given(st.lists(snapshots, min_size=2, max_size=7))
@example([exact(0), webhook(1), webhook(0), webhook(1), webhook(2)])
@example([exact(0, traits=LOYAL), exact(1, traits=2**53), webhook(0, traits=LOYAL)])
@example([partial(1, traits={}), webhook(0), webhook(1), webhook(2)])
@example([exact(0, traits=LOYAL), exact(1), webhook(2, traits=LOYAL)])
def test_early_return_is_right_for_any_history(history: list[Identity]) -> None:
    row = KratosIdentity(id=ADA, synced_at=NOON, version=0)
    for snapshot in history:
        assert_early_return_is_right(row, snapshot)
        row.update(snapshot, at=LATE, cause=cause())
    for snapshot in history:
        assert_early_return_is_right(row, snapshot)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*WEBHOOKS, *CALLS, *LISTING]), max_size=8))
def test_early_return_is_right_for_recorded_identities(history: list[Identity]) -> None:
    row = KratosIdentity(id=ADA, synced_at=NOON, version=0)
    for snapshot in history:
        assert_early_return_is_right(row, snapshot)
        row.update(snapshot, at=LATE, cause=cause())


def test_early_return_is_right_for_recorded_calls_in_order_and_repeated() -> None:
    rows: dict[object, KratosIdentity] = {}
    for call in CALLS:
        row = rows.setdefault(call.id, KratosIdentity(id=call.id, synced_at=NOON, version=0))
        assert_early_return_is_right(row, call)
        row.update(call, at=LATE, cause=cause())
    for call in CALLS:
        assert_early_return_is_right(rows[call.id], call)


@pytest.mark.parametrize("updated", [-1, 0, 1])
@pytest.mark.parametrize(
    "row",
    [
        met(webhook(), webhook()),
        met(webhook(pronouns="she"), webhook(0, pronouns="she")),
        met(exact(-5), webhook()),
        met(exact(-5, traits=document()["traits"]), webhook(-4), webhook()),
    ],
)
def test_only_a_newer_webhook_changes_an_ordinary_row(row: KratosIdentity, updated: int) -> None:
    changes = assert_early_return_is_right(row, webhook(updated))

    assert ("updated_at" in changes) is (updated > 0)
    assert updated > 0 or changes == {}


def test_a_first_snapshot_is_taken_over_whole() -> None:
    blank = KratosIdentity(id=ADA, synced_at=NOON, version=0)

    changes = assert_early_return_is_right(blank, webhook())

    assert changes["traits"] == webhook().traits
    assert changes["verifiable_addresses"] == webhook().verifiable_addresses


@pytest.mark.parametrize(
    "part", ["traits", "metadata_public", "verifiable_addresses", "recovery_addresses", "pronouns"]
)
def test_an_older_webhook_adds_a_part_that_was_missing(part: str) -> None:
    everything = document(external_id="crm-7", region="eu", pronouns="she")
    late = webhook(-1, pronouns="she")

    missing = met(Identity.from_kratos(without(everything, part)))
    overtaken = met(webhook(-2, pronouns="it"), Identity.from_kratos(without(everything, part)))

    for row in (missing, overtaken):
        assert assert_early_return_is_right(row, late) != {}


def test_a_verification_changes_an_equally_recent_row() -> None:
    verified = webhook(verifiable_addresses=[address(verified_at=minutes(1))])

    assert assert_early_return_is_right(met(webhook()), verified).keys() == {"verifiable_addresses"}


def test_an_equally_recent_webhook_does_not_outrank_the_admin_api() -> None:
    assert merge(met(exact()), webhook(state="inactive"), LATE) == {}


def test_an_equal_answer_of_the_admin_api_changes_nothing() -> None:
    assert merge(met(exact()), exact(), LATE) == {}
