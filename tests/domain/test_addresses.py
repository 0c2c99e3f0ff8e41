from typing import Any

import pytest

from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress, united
from kratos_sync.domain.fields import InvalidField
from kratos_sync.domain.json_values import Json
from tests.domain.people import address, minutes, without

SENT: dict[str, Json] = {
    "id": "8478cae5-8e9a-4cee-845c-2c296b4fe5bd",
    "value": "ada@example.org",
    "verified": True,
    "via": "email",
    "status": "completed",
    "verified_at": "2026-11-23T03:25:12.718229Z",
    "created_at": "2026-11-23T03:25:11.67Z",
    "updated_at": "2026-11-23T03:25:11Z",
    "carrier": {"kind": "tin can"},
}


def read(**changes: Any) -> VerifiableAddress:
    return VerifiableAddress.from_kratos(address(**changes))


def test_a_verifiable_address_goes_back_to_kratos_shape() -> None:
    assert VerifiableAddress.from_kratos(SENT).to_kratos() == SENT


def test_an_unverified_address_has_no_time_of_verification() -> None:
    assert "verified_at" not in read().to_kratos()


def test_a_recovery_address_goes_back_to_kratos_shape() -> None:
    sent = without(SENT, "verified", "status", "verified_at")

    assert RecoveryAddress.from_kratos(sent).to_kratos() == sent


def test_an_address_needs_nothing_but_via_and_value() -> None:
    ada = VerifiableAddress.from_kratos({"via": "sms", "value": "+3612345678"})

    assert not ada.verified
    assert VerifiableAddress.from_kratos(ada.to_kratos()) == ada


@pytest.mark.parametrize("kind", [VerifiableAddress, RecoveryAddress])
def test_an_address_without_a_value_is_invalid(
    kind: type[VerifiableAddress] | type[RecoveryAddress],
) -> None:
    with pytest.raises(InvalidField, match=r"^value is not a string$"):
        kind.from_kratos({"via": "email"})


def test_no_value_shows_in_a_repr() -> None:
    assert "ada" not in repr(VerifiableAddress.from_kratos(SENT))
    assert "ada" not in repr(RecoveryAddress.from_kratos(SENT))


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        (read(status="lost"), read(status="pending")),
        (read(status="pending"), read(status="sent")),
        (read(status="sent"), read(verified_at=minutes(1))),
        (read(verified_at=minutes(1)), read(verified_at=minutes(2))),
        (read(created_at=None), read()),
        (read(carrier="tin can"), read()),
    ],
)
def test_a_status_only_climbs(lower: VerifiableAddress, higher: VerifiableAddress) -> None:
    assert united([lower, higher]) == united([higher, lower]) == (higher,)


def test_addresses_unite_by_via_and_value() -> None:
    home, work = read(value="ada@home.org"), read(value="ada@work.org")
    phone: dict[str, Json] = {"via": "sms", "value": "ada@home.org"}
    text = VerifiableAddress.from_kratos(phone)

    assert united([work, text, home, work]) == (home, work, text)
