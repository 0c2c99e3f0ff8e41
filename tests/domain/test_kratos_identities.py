import pytest

from kratos_sync.domain.kratos_identities import KratosIdentities
from kratos_sync.testing.fakes import InMemoryKratosIdentities
from tests.domain.people import ADA, GRACE, met, webhook


def test_an_identity_is_found_by_its_id() -> None:
    ada = met(webhook())
    identities: KratosIdentities = InMemoryKratosIdentities()

    identities.add(ada)

    assert identities.find(ADA) is ada
    assert identities.find(GRACE) is None


def test_an_identity_is_added_once() -> None:
    identities = InMemoryKratosIdentities([met(webhook())])

    with pytest.raises(ValueError, match="was added before"):
        identities.add(met(webhook()))

    assert [identity.id for identity in identities] == [ADA]
