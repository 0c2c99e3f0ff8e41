from pathlib import Path

import pytest

from tests.programs import REQUIRED, installed_program


def test_a_program_that_is_installed_is_found_by_its_path() -> None:
    assert Path(installed_program("sh", "dash")).is_file()


def test_a_test_whose_program_is_missing_is_skipped_with_the_package_that_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(REQUIRED, raising=False)

    with pytest.raises(pytest.skip.Exception, match=r"^none such is .* apt-get install a-package"):
        installed_program("none such", "a-package")


def test_where_programs_are_required_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "1")

    with pytest.raises(pytest.fail.Exception, match="is set, and none such is not installed here"):
        installed_program("none such", "a-package")
