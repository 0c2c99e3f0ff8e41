"""Addresses become the JSON, and come back of it, that the domain's own words for them are."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress
from kratos_sync.domain.fields import InvalidField
from kratos_sync.infrastructure.identities.rows import (
    decode_recovery,
    decode_verifiable,
    encode_recovery,
    encode_verifiable,
)
from kratos_sync.infrastructure.postgres.json import dumps
from tests.domain.people import NOON, address
from tests.suites.test_kratos_identities import recovery, verifiable

BERLIN = timezone(timedelta(hours=2))
ADDRESS = VerifiableAddress.from_kratos(address(verified_at=NOON))


@settings(deadline=None)
@given(st.lists(verifiable, max_size=3))
@example([ADDRESS._replace(created_at=datetime(2026, 1, 1, 0, 0, 0, 500000, UTC))])
@example([ADDRESS._replace(created_at=datetime(2026, 1, 1, 0, 0, 10, 0, UTC))])
@example([ADDRESS._replace(created_at=datetime(2026, 1, 1, 0, 0, 10, 120, BERLIN))])
@example([ADDRESS._replace(created_at=datetime(1, 1, 1, tzinfo=UTC))])
def test_verifiable_addresses(addresses: list[VerifiableAddress]) -> None:
    encoded = encode_verifiable(addresses)
    objects = [each.to_kratos() for each in addresses]

    assert json.loads(encoded) == objects
    assert decode_verifiable(encoded) == tuple(map(VerifiableAddress.from_kratos, objects))
    assert decode_verifiable(json.dumps(objects)) == decode_verifiable(encoded)


@settings(deadline=None)
@given(st.lists(recovery, max_size=3))
@example([RecoveryAddress(None, "ada@example.org", "email", None, None, {"label": [None, 2**70]})])
def test_recovery_addresses(addresses: list[RecoveryAddress]) -> None:
    encoded = encode_recovery(addresses)
    objects = [each.to_kratos() for each in addresses]

    assert json.loads(encoded) == objects
    assert decode_recovery(encoded) == tuple(map(RecoveryAddress.from_kratos, objects))
    assert decode_recovery(json.dumps(objects)) == decode_recovery(encoded)


@pytest.mark.parametrize(
    "more",
    [
        {"verified": None, "status": None},
        {"created_at": "2026-11-23T12:00:00.123456789+02:00"},
        {"created_at": "0001-01-01T00:00:00Z"},
        {"label": None},
    ],
)
def test_an_address_is_read_as_the_domain_reads_it(more: dict[str, str | None]) -> None:
    source = {**address(), **more}

    read = decode_verifiable(dumps([source]))

    assert read == (VerifiableAddress.from_kratos(source),)
    assert read[0].created_at is None or read[0].created_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("id", "ada"), ("value", None), ("verified", "yes"), ("created_at", "then"), ("status", 7)],
)
def test_what_is_no_address_is_named_as_the_domain_names_it(
    field: str, wrong: str | int | None
) -> None:
    with pytest.raises(InvalidField, match=f"^{field} is not "):
        decode_verifiable(dumps([{**address(), field: wrong}]))
