"""Which webhook a difference stands for, and which hooks are silent."""

from datetime import datetime, timedelta

import pytest

from kratos_sync.application.missed_webhooks import (
    SilentHook,
    if_missing,
    if_stale,
    silent_hooks,
)
from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.application.ports.reconciliation import Findings
from kratos_sync.domain.identity import ADDRESSES, Identity
from kratos_sync.domain.json_values import Json
from kratos_sync.domain.kratos_identity import KratosIdentity
from tests.domain.people import (
    LOYAL,
    NOON,
    address,
    cause,
    document,
    minutes,
    without,
    written,
)

LATER = minutes(60)
EXACT: dict[str, Json] = {"metadata_admin": None}
VERIFIED: Json = [address(verified_at=minutes(5))]


def held(**changes: Json) -> KratosIdentity:
    """Our row, as the Admin API once showed it; or a webhook, where there is no metadata_admin."""
    shown = document(**{**EXACT, **changes})
    read = Identity.from_admin_api
    if shown["metadata_admin"] == "absent":
        read = Identity.from_kratos
    row = KratosIdentity.seen(read(shown), at=NOON, cause=cause())
    row.mark_stored()
    return row


def missed(
    row: KratosIdentity | None = None, updated: float | None = 0, **changes: Json
) -> tuple[str, ...]:
    """What is missed where Kratos lists our Ada with these changes."""
    row = row or held()
    listed = Identity.from_admin_api(document(updated, **{**EXACT, **changes}))
    fields = row.differences(listed, at=LATER)
    assert fields
    return if_stale(row, listed, fields)


@pytest.mark.parametrize(
    ("made", "before", "hook"),
    [
        (NOON, NOON - timedelta(hours=1), "registration"),
        (NOON, NOON + timedelta(hours=1), "old"),
        (NOON, None, "old"),
    ],
)
def test_a_missing_identity_registered_since_the_run_before_or_is_old(
    made: datetime, before: datetime | None, hook: str
) -> None:
    listed = Identity.from_kratos(document())
    assert listed.created_at == made
    assert if_missing(listed, before) == hook


def test_a_missing_identity_without_creation_time_counts_as_old() -> None:
    assert if_missing(Identity.from_kratos(document(created_at=None)), NOON) == "old"


def test_a_verified_address_wants_a_verification() -> None:
    assert missed(verifiable_addresses=VERIFIED) == ("verification",)


def test_no_webhook_reports_a_mail_that_was_sent() -> None:
    row = held(verifiable_addresses=[address(status="pending")])
    assert missed(row) == ("untold",)


def test_other_traits_want_a_change_of_settings() -> None:
    assert missed(updated=1, traits={"email": "ada@example.org"}) == ("settings",)


def test_another_address_wants_a_change_of_settings_and_no_verification() -> None:
    changes = {"traits": {"email": "a@b.c"}, "verifiable_addresses": [address("a@b.c")]}
    assert missed(updated=1, **changes) == ("settings",)


def test_traits_and_a_verification_want_both() -> None:
    found = missed(updated=1, traits={"email": "a"}, verifiable_addresses=VERIFIED)
    assert sorted(found) == ["settings", "verification"]


def test_a_large_integer_that_webhooks_round_is_no_missed_webhook() -> None:
    row = held(metadata_admin="absent", traits={"loyalty": float(LOYAL)})
    assert missed(row, traits={"loyalty": LOYAL}) == ("untold",)


def test_what_no_webhook_carries_is_no_missed_webhook() -> None:
    assert missed(held(metadata_admin="absent")) == ("untold",)
    assert missed(updated=1, metadata_admin={"vip": True}) == ("untold",)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "inactive"},
        {"external_id": "ada-1"},
        {"organization_id": "3280695c-9cfc-4f35-bc67-150e11d35f6d"},
        {"metadata_public": {"team": "engines"}},
        {"schema_id": "engineer"},
    ],
)
def test_no_webhook_reports_what_administrators_change(change: dict[str, Json]) -> None:
    assert missed(updated=1, **change) == ("admin",)


def test_the_time_alone_wants_a_login() -> None:
    assert missed(updated=1) == ("login",)


def test_another_place_of_the_schemas_is_something_else() -> None:
    assert missed(updated=1, schema_url="http://elsewhere/schemas/person") == ("other",)


def test_an_identity_deleted_here_and_existing_in_kratos_was_revived() -> None:
    row = held()
    row.mark_deleted(at=minutes(1), cause=cause(2))
    row.mark_stored()
    assert missed(row) == ("revived",)


def test_only_what_a_webhook_should_have_reported_is_missed() -> None:
    counts = {"registration": 1, "settings": 2, "verification": 3, "login": 4}
    others = dict.fromkeys(("admin", "untold", "old", "on_its_way"), 100)
    assert Findings(missed_webhooks=counts | others).missed == 10


def test_an_identity_newer_here_than_in_kratos_misses_no_webhook() -> None:
    row = held(updated_at=written(minutes(5)), state="inactive")
    assert missed(row, updated=1) == ("newer",)
    assert Findings(missed_webhooks={"newer": 100}).missed == 0


def test_an_address_verified_only_here_is_newer_here() -> None:
    assert missed(held(verifiable_addresses=VERIFIED)) == ("newer",)


def test_no_webhook_reports_that_an_identity_has_no_addresses() -> None:
    none = without(document(), "verifiable_addresses", "recovery_addresses")
    row = KratosIdentity.seen(Identity.from_kratos(none), at=NOON, cause=cause())
    row.mark_stored()
    for listed in (none, {**none, "verifiable_addresses": [], "recovery_addresses": []}):
        identity = Identity.from_admin_api({**listed, **EXACT})
        fields = row.differences(identity, at=LATER)
        assert {"verifiable_addresses", "recovery_addresses"} <= set(fields)
        assert if_stale(row, identity, fields) == ("untold",)


@pytest.mark.parametrize("listed", ["absent", []])
def test_nor_that_the_last_address_was_removed(listed: Json) -> None:
    changed = document(1, traits={"name": "Ada"}, **EXACT)
    row = held()
    told = without(changed, "verifiable_addresses", "recovery_addresses")
    row.update(Identity.from_kratos(told), at=minutes(1), cause=cause(2))
    row.mark_stored()
    shown = told if listed == "absent" else {**told, **dict.fromkeys(ADDRESSES, listed)}
    identity = Identity.from_admin_api(shown)
    fields = row.differences(identity, at=LATER)
    assert fields == ("recovery_addresses", "verifiable_addresses")
    assert if_stale(row, identity, fields) == ("untold",)


def test_an_address_verified_again_later_here_than_in_kratos_is_newer_here() -> None:
    again: Json = [address(verified_at=minutes(9))]
    assert missed(held(verifiable_addresses=again), verifiable_addresses=VERIFIED) == ("newer",)
    assert missed(held(verifiable_addresses=VERIFIED), verifiable_addresses=again) == (
        "verification",
    )


HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def hook(label: str, *, every: timedelta, silent_for: timedelta, calls: int = 31) -> HookActivity:
    last = NOON - silent_for
    return HookActivity(label, last - (calls - 1) * every, last, calls)


BUSY = hook("login", every=HOUR, silent_for=HOUR)


def test_without_any_call_no_hook_is_silent() -> None:
    assert silent_hooks([], NOON) == []


def test_a_hook_is_silent_after_ten_of_its_usual_gaps() -> None:
    assert silent_hooks([BUSY, hook("settings", every=DAY, silent_for=10 * DAY)], NOON) == []
    silent = hook("settings", every=DAY, silent_for=11 * DAY)
    assert silent_hooks([BUSY, silent], NOON) == [SilentHook("settings", NOON - 11 * DAY, DAY)]


def test_a_quiet_weekend_is_no_silence() -> None:
    assert silent_hooks([BUSY, hook("settings", every=HOUR, silent_for=2 * DAY)], NOON) == []


def test_a_hook_with_few_calls_has_no_usual_gap() -> None:
    assert (
        silent_hooks([BUSY, hook("recovery", every=HOUR, silent_for=30 * DAY, calls=19)], NOON)
        == []
    )


def test_silence_of_all_hooks_is_reported_once() -> None:
    both = [hook(label, every=HOUR, silent_for=4 * DAY, calls=121) for label in ("a", "b")]
    (silence,) = silent_hooks(both, NOON)
    assert (silence.label, silence.last_at) == (None, NOON - 4 * DAY)
    assert timedelta() < silence.usual_gap < HOUR


def test_a_quiet_time_of_all_hooks_makes_none_silent() -> None:
    night = 2 * DAY
    both = [
        hook(label, every=HOUR, silent_for=night + age)
        for label, age in zip("ab", (HOUR, DAY), strict=True)
    ]
    assert silent_hooks(both, NOON) == []
