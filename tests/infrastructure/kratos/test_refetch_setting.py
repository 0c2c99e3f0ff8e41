"""KRATOS_REFETCH: asking Kratos again wants to know where it is."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from kratos_sync.infrastructure.settings import Settings


def settings(**given: str) -> Settings:
    required = {"database_url": "postgresql://db", "broker_url": "redis://valkey"}
    return Settings.model_validate({**required, **given})


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KRATOS_REFETCH", "KRATOS_ADMIN_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_it_is_off_unless_it_is_wanted() -> None:
    assert settings().kratos_refetch is False


def test_it_may_be_wanted_where_kratos_is_known() -> None:
    assert settings(kratos_refetch="true", kratos_admin_url="http://kratos:4434").kratos_refetch


@pytest.mark.parametrize("nowhere", [{}, {"kratos_admin_url": ""}])
def test_it_is_refused_where_kratos_is_not_known(nowhere: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="needs KRATOS_ADMIN_URL") as refused:
        settings(kratos_refetch="true", **nowhere)
    assert [error["loc"] for error in refused.value.errors()] == [("kratos_refetch",)]


def test_a_wrong_address_is_one_error_and_not_two() -> None:
    with pytest.raises(ValidationError) as refused:
        settings(kratos_refetch="true", kratos_admin_url="ftp://ada:lovelace@kratos")
    assert [error["loc"] for error in refused.value.errors()] == [("kratos_admin_url",)]
