"""Templates are found where Kratos would find them, or beside the configuration, and run apart."""

import os
from pathlib import Path

import pytest

from kratos_sync.application.kratos_config.templates import CONTEXTS, MAPPER, Problem, inline
from kratos_sync.infrastructure.kratos import config_file as kratos_templates
from kratos_sync.infrastructure.kratos.config_file import MOST_BYTES, JsonnetTemplates


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mapper.jsonnet").write_text(MAPPER)
    (tmp_path / "below").mkdir()
    (tmp_path / "below/other.jsonnet").write_text(MAPPER)
    return tmp_path


def problem_of(body: str, folder: Path | None) -> Problem | None:
    rendered = JsonnetTemplates(folder).render(body, CONTEXTS)
    return rendered if isinstance(rendered, Problem) else None


@pytest.mark.parametrize(
    "body",
    [
        "file://FOLDER/mapper.jsonnet",
        "FOLDER/below/other.jsonnet",
        "file://mapper.jsonnet",
        "file://./mapper.jsonnet",
        "file://below/other.jsonnet",
        "file:///etc/config/kratos/mapper.jsonnet",
        inline(),
    ],
)
def test_a_template_is_found_by_its_path_or_beside_the_configuration(
    folder: Path, body: str
) -> None:
    rendered = JsonnetTemplates(folder).render(body.replace("FOLDER", str(folder)), CONTEXTS)

    assert not isinstance(rendered, Problem)
    assert len(rendered) == len(CONTEXTS)
    assert all(output is not None for output in rendered)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("file://FOLDER/none.jsonnet", Problem.MISSING),
        ("FOLDER/none.jsonnet", Problem.MISSING),
        ("file://none.jsonnet", Problem.MISSING),
        ("FILE://mapper.jsonnet", Problem.MISSING),
        ("file://FOLDER/below", Problem.MISSING),
        ("file:///no/such/folder/none.jsonnet", Problem.FOLDER_ELSEWHERE),
        ("https://example.org/mapper.jsonnet", Problem.NOT_LOOKED_AT),
        ("base64://%%%", Problem.NOT_BASE64),
        ("file://\0", Problem.MISSING),
    ],
)
def test_a_missing_template_differs_from_one_that_is_elsewhere(
    folder: Path, body: str, problem: Problem
) -> None:
    assert problem_of(body.replace("FOLDER", str(folder)), folder) is problem


def test_beside_standard_input_no_file_is_missing(folder: Path) -> None:
    assert problem_of("file://none.jsonnet", None) is Problem.NOT_LOOKED_AT
    assert problem_of(f"file://{folder}/none.jsonnet", None) is Problem.NOT_LOOKED_AT
    assert problem_of(f"file://{folder}/mapper.jsonnet", None) is None


def test_a_file_without_an_end_is_not_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "large").write_bytes(b" " * (MOST_BYTES + 1))

    assert problem_of("file://pipe", folder) is Problem.MISSING
    assert problem_of("file://large", folder) is Problem.NOT_RUN


def test_what_is_no_text_is_no_jsonnet(folder: Path) -> None:
    (folder / "binary").write_bytes(b"\xff\xfe")

    assert problem_of("file://binary", folder) is Problem.NOT_JSONNET


def test_a_template_runs_once_however_often_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = JsonnetTemplates(folder)
    first = templates.render(inline(), CONTEXTS)
    monkeypatch.setattr(kratos_templates, "_run", None)

    assert templates.render(inline(), CONTEXTS) is first
    assert templates.render("file://mapper.jsonnet", CONTEXTS) is first


def test_all_templates_together_have_so_much_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kratos_templates, "TIME_LIMIT", 0.0)

    assert problem_of(inline(), folder) is Problem.NOT_RUN
