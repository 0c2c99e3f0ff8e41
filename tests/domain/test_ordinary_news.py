"""What is worked out in short for the most frequent snapshots is what weighing each part gives."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import Json, same
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.domain.merging import merge_fields, ordinary_news
from tests.domain.people import (
    ADA,
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
from tests.domain.test_convergence import FIELDS, TEXTS
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
ALWAYS_TOLD = (
    "schema_id",
    "state",
    "traits",
    "created_at",
    "updated_at",
    "organization_id",
    "metadata_public",
)


def person(*always: str, never: str = "") -> st.SearchStrategy[dict[str, Json]]:
    return st.fixed_dictionaries(
        {"id": st.just(str(ADA)), **{name: MORE[name] for name in always}},
        optional={name: told for name, told in MORE.items() if name not in {*always, never}},
    )


snapshots = st.one_of(
    person(*ALWAYS_TOLD, never="metadata_admin"),
    person(*ALWAYS_TOLD, "schema_url", "verifiable_addresses", never="metadata_admin"),
    person(),
).map(Identity.from_kratos) | st.one_of(person(*ALWAYS_TOLD, "metadata_admin"), person()).map(
    Identity.from_admin_api
)


def assert_nothing_else_is_weighed(row: KratosIdentity, snapshot: Identity) -> bool:
    """Whether the news were worked out in short; then they are the same."""
    news = ordinary_news(row, snapshot, LATE)
    if news is None:
        return False
    every = merge_fields(row, snapshot, LATE)
    assert news.keys() == every.keys()
    for name, value in news.items():
        assert same(value, every[name]), name
        assert type(value) is type(every[name])
    return True


@settings(max_examples=400, deadline=None)
@given(st.lists(snapshots, min_size=2, max_size=7))
@example([exact(0), webhook(1), webhook(0), webhook(1), webhook(2)])
@example([exact(0, traits=LOYAL), exact(1, traits=2**53), webhook(0, traits=LOYAL)])
@example([partial(1, traits={}), webhook(0), webhook(1), webhook(2)])
@example([exact(0, traits=LOYAL), exact(1), webhook(2, traits=LOYAL)])
def test_news_in_short_are_the_news(told: list[Identity]) -> None:
    row = KratosIdentity(id=ADA, synced_at=NOON, version=0)
    for snapshot in told:
        assert_nothing_else_is_weighed(row, snapshot)
        row.update(snapshot, at=LATE, cause=cause())
    for snapshot in told:
        assert_nothing_else_is_weighed(row, snapshot)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*WEBHOOKS, *CALLS, *LISTING]), max_size=8))
def test_news_in_short_are_the_news_of_recorded_people(told: list[Identity]) -> None:
    row = KratosIdentity(id=ADA, synced_at=NOON, version=0)
    for snapshot in told:
        assert_nothing_else_is_weighed(row, snapshot)
        row.update(snapshot, at=LATE, cause=cause())


def test_every_recorded_call_is_worked_out_in_short_when_it_comes_in_order() -> None:
    rows: dict[object, KratosIdentity] = {}
    short = 0
    for call in CALLS:
        row = rows.setdefault(call.id, KratosIdentity(id=call.id, synced_at=NOON, version=0))
        short += assert_nothing_else_is_weighed(row, call)
        row.update(call, at=LATE, cause=cause())

    assert short == len(CALLS)


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
def test_an_ordinary_row_and_a_webhook_need_no_weighing(row: KratosIdentity, updated: int) -> None:
    assert assert_nothing_else_is_weighed(row, webhook(updated))


def test_a_first_sight_needs_no_weighing() -> None:
    blank = KratosIdentity(id=ADA, synced_at=NOON, version=0)

    assert assert_nothing_else_is_weighed(blank, webhook())


@pytest.mark.parametrize(
    "part", ["traits", "metadata_public", "verifiable_addresses", "recovery_addresses", "pronouns"]
)
def test_an_older_webhook_that_tells_what_nobody_told_is_weighed(part: str) -> None:
    everything = document(external_id="crm-7", region="eu", pronouns="she")
    late = webhook(-1, pronouns="she")

    untold = met(Identity.from_kratos(without(everything, part)))
    overtaken = met(webhook(-2, pronouns="it"), Identity.from_kratos(without(everything, part)))

    for row in (untold, overtaken):
        assert ordinary_news(row, late, LATE) is None
        assert merge_fields(row, late, LATE) != {}


def test_a_verification_needs_no_weighing() -> None:
    verified = webhook(verifiable_addresses=[address(verified_at=minutes(1))])

    assert assert_nothing_else_is_weighed(met(webhook()), verified)
    assert ordinary_news(met(webhook()), verified, LATE) != {}


def test_an_equally_recent_webhook_that_differs_from_the_admin_api_is_weighed() -> None:
    assert ordinary_news(met(exact()), webhook(state="inactive"), LATE) is None


def test_what_the_admin_api_says_is_always_weighed() -> None:
    assert ordinary_news(met(exact()), exact(), LATE) is None
