"""What a difference says of the webhooks that were not heard."""

from datetime import datetime, timedelta

import pytest

from kratos_sync.application.missed_webhooks import missed, missing, stale
from kratos_sync.domain.identity import Identity
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
    """Our row, as the Admin API once told it; or a webhook, where there is no metadata_admin."""
    told = document(**{**EXACT, **changes})
    read = Identity.from_admin_api
    if told["metadata_admin"] == "absent":
        read = Identity.from_kratos
    row = KratosIdentity.seen(read(told), at=NOON, cause=cause())
    row.mark_stored()
    return row


def unheard(
    row: KratosIdentity | None = None, updated: float | None = 0, **changes: Json
) -> tuple[str, ...]:
    """What is missed where Kratos lists our Ada with these changes."""
    row = row or held()
    listed = Identity.from_admin_api(document(updated, **{**EXACT, **changes}))
    fields = row.differences(listed, at=LATER)
    assert fields
    return stale(row, listed, fields)


@pytest.mark.parametrize(
    ("made", "before", "hook"),
    [
        (NOON, NOON - timedelta(hours=1), "registration"),
        (NOON, NOON + timedelta(hours=1), "old"),
        (NOON, None, "old"),
    ],
)
def test_who_is_missing_registered_since_the_comparison_before_or_is_older(
    made: datetime, before: datetime | None, hook: str
) -> None:
    listed = Identity.from_kratos(document())
    assert listed.created_at == made
    assert missing(listed, before) == (hook,)


def test_who_is_missing_and_has_no_age_is_nobodys_fault() -> None:
    assert missing(Identity.from_kratos(document(created_at=None)), NOON) == ("old",)


def test_a_verified_address_wants_a_verification() -> None:
    assert unheard(verifiable_addresses=VERIFIED) == ("verification",)


def test_a_mail_that_was_sent_is_told_by_no_webhook() -> None:
    row = held(verifiable_addresses=[address(status="pending")])
    assert unheard(row) == ("untold",)


def test_other_traits_want_a_change_of_settings() -> None:
    assert unheard(updated=1, traits={"email": "ada@example.org"}) == ("settings",)


def test_another_address_wants_a_change_of_settings_and_no_verification() -> None:
    changes = {"traits": {"email": "a@b.c"}, "verifiable_addresses": [address("a@b.c")]}
    assert unheard(updated=1, **changes) == ("settings",)


def test_traits_and_a_verification_want_both() -> None:
    found = unheard(updated=1, traits={"email": "a"}, verifiable_addresses=VERIFIED)
    assert sorted(found) == ["settings", "verification"]


def test_a_large_integer_that_webhooks_round_is_nobodys_fault() -> None:
    row = held(metadata_admin="absent", traits={"loyalty": float(LOYAL)})
    assert unheard(row, traits={"loyalty": LOYAL}) == ("untold",)


def test_what_no_webhook_carries_is_nobodys_fault() -> None:
    assert unheard(held(metadata_admin="absent")) == ("untold",)
    assert unheard(updated=1, metadata_admin={"vip": True}) == ("untold",)


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
def test_what_administrators_change_is_told_by_no_webhook(change: dict[str, Json]) -> None:
    assert unheard(updated=1, **change) == ("admin",)


def test_the_time_alone_wants_a_login() -> None:
    assert unheard(updated=1) == ("login",)


def test_another_place_of_the_schemas_is_something_else() -> None:
    assert unheard(updated=1, schema_url="http://elsewhere/schemas/person") == ("other",)


def test_who_is_deleted_here_and_there_in_kratos_was_revived() -> None:
    row = held()
    row.mark_deleted(at=minutes(1), cause=cause(2))
    row.mark_stored()
    assert unheard(row) == ("revived",)


def test_only_what_a_webhook_should_have_told_is_missed() -> None:
    counts = {"registration": 1, "settings": 2, "verification": 3, "login": 4}
    assert missed({**counts, "admin": 100, "untold": 100, "old": 100, "on_its_way": 100}) == 10


def test_who_is_newer_here_than_in_kratos_misses_no_webhook() -> None:
    row = held(updated_at=written(minutes(5)), state="inactive")
    assert unheard(row, updated=1) == ("newer",)
    assert missed({"newer": 100}) == 0


def test_who_is_verified_here_alone_is_newer_here() -> None:
    assert unheard(held(verifiable_addresses=VERIFIED)) == ("newer",)


def test_that_somebody_has_no_addresses_is_told_by_no_webhook() -> None:
    none = without(document(), "verifiable_addresses", "recovery_addresses")
    row = KratosIdentity.seen(Identity.from_kratos(none), at=NOON, cause=cause())
    row.mark_stored()
    for listed in (none, {**none, "verifiable_addresses": [], "recovery_addresses": []}):
        identity = Identity.from_admin_api({**listed, **EXACT})
        fields = row.differences(identity, at=LATER)
        assert {"verifiable_addresses", "recovery_addresses"} <= set(fields)
        assert stale(row, identity, fields) == ("untold",)
