"""The Admin API as a process gets it."""

import pytest
from dependency_injector import providers

from kratos_sync.application.ports.kratos import KratosNotConfigured
from kratos_sync.infrastructure.container import Container
from kratos_sync.infrastructure.settings import Settings
from kratos_sync.testing.kratos import InMemoryDocuments
from tests.kratos.admin_stand_in import AdminStandIn
from tests.kratos.persons import person


def container(url: str) -> Container:
    given = Container()
    given.settings.override(
        providers.Object(
            Settings(
                _env_file=None,
                database_url="postgresql://db",
                broker_url="redis://valkey",
                kratos_admin_url=url,
                kratos_admin_token="lovelace",
            )
        )
    )
    return given


def test_the_container_gives_one_admin_api_for_a_process() -> None:
    town = InMemoryDocuments()
    identity_id = town.put(person())
    with AdminStandIn(town) as stand_in:
        stand_in.authorization = "Bearer lovelace"
        given = container(stand_in.url)
        admin = given.kratos_admin(rate=100)

        assert admin is given.kratos_admin()
        assert admin.find(identity_id)
        admin.close()


def test_without_a_url_the_missing_setting_is_named() -> None:
    with pytest.raises(KratosNotConfigured, match="KRATOS_ADMIN_URL"):
        container("").kratos_admin()
