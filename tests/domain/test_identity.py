import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from kratos_sync.domain.identity import Identity, IdentityIdIsEmpty, InvalidIdentity
from kratos_sync.domain.json_values import ABSENT, Json
from tests.domain.people import (
    ADA,
    ALWAYS_SENT,
    address,
    document,
    exact,
    partial,
    webhook,
    without,
)

PERSONAL = "ada@example.org"


def test_an_identity_needs_nothing_but_its_id() -> None:
    ada = Identity.from_kratos({"id": str(ADA)})

    assert ada == Identity(ADA)
    assert ada.traits is ABSENT
    assert ada.verifiable_addresses is ABSENT
    assert ada.updated_at is ABSENT


@pytest.mark.parametrize(
    "source", [{}, {"id": None}, {"id": ""}, {"id": "00000000-0000-0000-0000-000000000000"}]
)
def test_an_identity_before_kratos_stored_it_has_an_empty_id(source: dict[str, Json]) -> None:
    with pytest.raises(IdentityIdIsEmpty, match=r"^id is empty$"):
        Identity.from_kratos(source)


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        False,
        [],
        {},
        "ada",
        "{e52e75c7-afbb-4316-a4ef-3977a428a2ca}",
        "e52e75c7afbb4316a4ef3977a428a2ca",
        "e52e75c7-afbb-4316-a4ef-3977a428a2cg",
        "e52e75c7-afbb-4316-a4ef-3977a428a_ca",
        "e52e75c7-afbb-4316-a4ef-3977a428 2ca",
    ],
)
def test_an_id_that_is_no_uuid_is_invalid(wrong: Json) -> None:
    with pytest.raises(InvalidIdentity, match=r"^id is not a UUID$") as refused:
        Identity.from_kratos({"id": wrong})

    assert not isinstance(refused.value, IdentityIdIsEmpty)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("state", 1),
        ("schema_id", ["person"]),
        ("schema_url", {}),
        ("external_id", 17),
        ("region", True),
        ("created_at", "yesterday"),
        ("updated_at", 1700000000),
        ("state_changed_at", "2026-11-23"),
        ("organization_id", "acme"),
        ("organization_id", 4),
        ("verifiable_addresses", {}),
        ("recovery_addresses", "ada@example.org"),
    ],
)
def test_a_wrong_type_is_named_by_its_field_and_never_by_its_value(field: str, wrong: Json) -> None:
    with pytest.raises(InvalidIdentity) as refused:
        Identity.from_kratos({**document(), field: wrong})

    assert refused.value.field == field
    assert str(refused.value) == f"{field} {refused.value.problem}"
    assert PERSONAL not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (PERSONAL, "verifiable_addresses[0]"),
        (address(id="one"), "verifiable_addresses[0].id"),
        (address(verified="yes"), "verifiable_addresses[0].verified"),
        (address(status=3), "verifiable_addresses[0].status"),  # type: ignore[arg-type]
        (address(updated_at="then"), "verifiable_addresses[0].updated_at"),
        (without(address(), "value"), "verifiable_addresses[0].value"),
        (without(address(), "via"), "verifiable_addresses[0].via"),
    ],
)
def test_a_wrong_address_is_named_by_its_place(wrong: Json, field: str) -> None:
    with pytest.raises(InvalidIdentity) as refused:
        Identity.from_kratos(document(verifiable_addresses=[wrong]))

    assert refused.value.field == field
    assert PERSONAL not in str(refused.value)


def test_null_is_not_absent() -> None:
    ada = partial(traits=None, state=None, organization_id=None, metadata_public=None)

    assert (ada.traits, ada.state, ada.organization_id, ada.metadata_public) == (None,) * 4
    assert ada.metadata_admin is ABSENT


def test_addresses_compare_as_sets() -> None:
    home, work = address("ada@home.org"), address("ada@work.org")

    one = webhook(verifiable_addresses=[home, work])
    other = webhook(verifiable_addresses=[work, home])

    assert one == other


def test_times_are_in_utc_at_microseconds_and_zero_is_none() -> None:
    ada = webhook(
        updated_at="2026-11-23T05:25:11.678152999+02:00",
        created_at="0001-01-01T00:00:00Z",
        state_changed_at="0001-01-01T00:00:00+14:00",
    )

    assert ada.updated_at == datetime(2026, 11, 23, 3, 25, 11, 678152, UTC)
    assert ada.created_at is None
    assert ada.state_changed_at is None


def test_a_field_of_next_year_is_kept() -> None:
    ada = webhook(pronouns="she", verifiable_addresses=[address(carrier="tin can")])

    assert ada.unknown == {"pronouns": "she"}
    assert ada.verifiable_addresses is not ABSENT
    assert ada.verifiable_addresses[0].unknown == {"carrier": "tin can"}


def test_credentials_are_dropped() -> None:
    sent = document(credentials={"password": {"identifiers": [PERSONAL]}})

    ada = Identity.from_kratos(sent)

    assert ada.unknown == {}
    assert ada.document == without(sent, "credentials")
    assert "credentials" in sent


def test_the_document_is_what_was_sent() -> None:
    sent = document(pronouns="she")

    assert Identity.from_kratos(sent).document is sent


def test_no_personal_data_reaches_a_log() -> None:
    ada = exact(recovery_addresses=[without(address(), "verified", "status")], external_id="crm-17")

    assert repr(ada) == f"Identity(id={ADA!r})"
    assert PERSONAL not in repr(ada.verifiable_addresses)
    assert PERSONAL not in repr(ada.recovery_addresses)


def test_only_what_was_fetched_is_exact_whatever_a_document_says() -> None:
    assert exact().is_exact
    assert Identity.from_admin_api(document()).is_exact
    assert not webhook().is_exact
    assert not webhook(metadata_admin={"plan": "gold"}).is_exact
    assert webhook(is_exact=True).unknown == {"is_exact": True}
    assert exact() != webhook()


@pytest.mark.parametrize("metadata", [None, {"plan": "gold"}])
def test_metadata_for_administrators_is_dropped_from_a_webhook(metadata: Json) -> None:
    ada = webhook(metadata_admin=metadata)

    assert ada.metadata_admin is ABSENT
    assert ada == webhook()
    assert ada.document == document()


@pytest.mark.parametrize("field", ALWAYS_SENT)
def test_a_snapshot_that_lacks_what_kratos_always_sends_is_not_whole(field: str) -> None:
    assert webhook().is_whole
    assert not Identity.from_kratos(without(document(), field)).is_whole


def test_an_identity_survives_being_written_as_json() -> None:
    ada = exact(organization_id=str(UUID(int=7)), pronouns={"is": ["she"]})

    assert Identity.from_admin_api(json.loads(json.dumps(ada.document))) == ada
