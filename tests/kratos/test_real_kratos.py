"""A real Kratos is started and asked as it wants to be: tried on one that is as strict."""

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.kratos.real_kratos import RealKratos

STAND_IN = Path(__file__).with_name("kratos_stand_in.py")


@pytest.fixture
def kratos(tmp_path: Path) -> Iterator[RealKratos]:
    program = tmp_path / "kratos"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    program.chmod(0o755)
    with RealKratos(str(program), tmp_path) as started:
        yield started


def people(kratos: RealKratos) -> list[dict[str, object]]:
    found: list[dict[str, object]] = httpx.get(f"{kratos.admin_url}/admin/identities").json()
    return found


def test_a_registration_needs_no_browser_and_no_network(kratos: RealKratos) -> None:
    kratos.does("register", 0, 1)

    assert [each["id"] for each in kratos.calls()] == [each["id"] for each in people(kratos)]


def test_no_external_id_repeats(kratos: RealKratos) -> None:
    for number in range(3):
        kratos.does("import", number, 0)
    for number in (0, 0, 1, 1, 2, 2):  # removed, and another one given
        kratos.does("patch external id", number, 0)

    assert len({each["external_id"] for each in people(kratos)}) == 3


def test_it_starts_again_empty(kratos: RealKratos) -> None:
    kratos.does("register", 0, 1)

    kratos.begin_anew()

    assert (kratos.calls(), people(kratos)) == ([], [])
