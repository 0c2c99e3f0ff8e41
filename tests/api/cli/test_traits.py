"""`kratos-sync traits`: what it writes has the types of the schema, and passes every check."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import datamodel_code_generator
import pytest

from kratos_sync import TraitsDoNotFit, traits_of
from kratos_sync.domain.json_values import Json
from tests.api.cli.invoking import kratos_sync

ROOT = Path(__file__).parents[3]
SCHEMAS = [
    ROOT / "deploy/kratos/identity.schema.json",
    *sorted((Path(__file__).parent / "identity_schemas").glob("*.json")),
]
NAMES = [schema.stem for schema in SCHEMAS]


@dataclass(frozen=True)
class Somebody:
    traits: Mapping[str, Json]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The modules of all schemas, each with the name of its schema."""
    folder = tmp_path_factory.mktemp("traits")
    for schema in SCHEMAS:
        file = folder / f"{schema.stem.partition('.')[0]}.py"
        result = kratos_sync("traits", str(schema), "--output", str(file))
        assert result.exit_code == 0, result.output
        assert result.stdout == f"Wrote {file}.\n"
    return folder


def traits_type(folder: Path, name: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        return import_module(name).Traits


def check(*command: str, cwd: Path) -> None:
    ran = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("mypy", "--strict", "--config-file=", "."),
        ("ruff", "check", "--isolated", "--extend-select=E501", "."),
        ("ruff", "check", f"--config={ROOT / 'pyproject.toml'}", "."),
        ("ruff", "format", "--isolated", "--check", "--line-length=60", "."),
    ],
    ids=["types", "lint", "our lint", "format of any width"],
)
def test_every_module_passes(folder: Path, command: tuple[str, ...]) -> None:
    check(*command, cwd=folder)


FITTING: list[tuple[str, Json]] = [
    ("identity", {"email": "ada@example.org"}),
    ("identity", {"email": "ada@example.org", "name": {"first": "Ada"}, "loyalty_number": 5}),
    ("username", {"username": "ada"}),
    ("email_or_phone", {"terms": True, "phone": "+48 1"}),
    ("email_or_phone", {"terms": True, "email": "ada@example.org"}),
    ("organisation", {"emails": [], "name": {"last": "Lovelace"}}),
    (
        "organisation",
        {
            "emails": ["ada@example.org"],
            "name": {"first": "Ada", "last": "Lovelace", "aliases": ["A. A. L."]},
            "plan": "team",
            "language": "pl",
            "born": None,
            "seats": 4.0,
            "rating": 5,
            "billing": {"country": "PL"},
            "offices": [{"country": "DE", "street": "Linienstraße"}],
            "labels": {"desk": "4"},
            "seating": {"ada": 4},
            "tags": ["new", 1],
            "crm": {"id": None},
            "reference": 7,
            "deputy": {"emails": [], "name": {"last": "Byron"}},
            "notes": [None, {"a": 1.5}],
        },
    ),
    (
        "odd_names",
        {
            "first-name": "Ada",
            "firstName": "Ada",
            "first_name": "Ada",
            "class": "analyst",
            "2fa": True,
            "größe": 1.65,
            "_internal": "x",
            "str": "x",
            "Any": {"_id": "x"},
            "traits": {"email": "ada@example.org"},
            "https://example.org/claims#role": 'it\'s "quoted"',
            "$ref": "x",
            "properties": {"type": "x"},
        },
    ),
]


@pytest.mark.parametrize(("name", "traits"), FITTING)
def test_traits_that_kratos_accepts_fit(folder: Path, name: str, traits: dict[str, Json]) -> None:
    recorded = json.loads(json.dumps(traits))
    assert traits_of(Somebody(recorded), traits_type(folder, name)) == traits


@pytest.mark.parametrize(
    ("name", "traits", "problem"),
    [
        ("identity", {"phone": "+48 1"}, "email is missing"),
        ("identity", {"email": "", "name": {"first": 1}}, "name.first is no text"),
        ("email_or_phone", {"terms": False}, "terms is none of the values that are allowed"),
        ("organisation", {"emails": "x", "name": {"last": ""}}, "emails is no list"),
        ("organisation", {"emails": [], "name": {}}, "name.last is missing"),
        (
            "organisation",
            {"emails": [], "name": {"last": ""}, "offices": [{"country": "FR"}]},
            "offices[0].country is none of the values that are allowed",
        ),
        (
            "organisation",
            {"emails": [], "name": {"last": ""}, "deputy": {"emails": []}},
            "deputy.name is missing",
        ),
        (
            "organisation",
            {"emails": [], "name": {"last": ""}, "seating": {"ada": "4"}},
            "seating[…] is no integer",
        ),
        ("odd_names", {"class": ""}, "größe is missing"),
        ("odd_names", {"class": "", "größe": 1, "Any": {"_id": 5}}, "Any._id is no text"),
    ],
)
def test_other_traits_do_not(
    folder: Path, name: str, traits: dict[str, Json], problem: str
) -> None:
    with pytest.raises(TraitsDoNotFit) as raised:
        traits_of(Somebody(traits), traits_type(folder, name))
    assert str(raised.value) == f"the traits are no Traits: {problem}"


def test_the_names_are_those_that_kratos_uses(folder: Path) -> None:
    for schema in SCHEMAS:
        kind = traits_type(folder, schema.stem.partition(".")[0])
        traits = json.loads(schema.read_text())["properties"]["traits"]
        assert list(get_type_hints(kind)) == list(traits["properties"])
        assert kind.__required_keys__ == set(traits["required"])


def test_no_trait_is_of_any_type(folder: Path) -> None:
    assert "Any" not in (folder / "organisation.py").read_text()


def test_the_same_schema_gives_the_same_module_wherever_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.black]\nline-length = 30\n[tool.datamodel-codegen]\nclass-name = "Other"\n'
    )
    monkeypatch.chdir(tmp_path)

    with SCHEMAS[0].open() as schema:
        result = kratos_sync("traits", "-", typed=schema.read())

    assert result.exit_code == 0
    assert result.stdout == (folder / "identity.py").read_text()


def test_a_module_is_written_anew(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "traits.py"
    file.write_text("old")

    assert kratos_sync("traits", str(SCHEMAS[0]), "--output", str(file)).exit_code == 0

    assert file.read_text() == (folder / "identity.py").read_text()


def schema_of(tmp_path: Path, text: str) -> str:
    file = tmp_path / "person.json"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read: it is not JSON."),
        ("properties: {}", "cannot be read: it is not JSON."),
        ("[" * 100_000, "cannot be read: it is nested too deeply."),
        (" " * 1_048_577, "has more than 1 MiB."),
        ("[]", "has no traits to write types of: it has no properties.traits."),
        (
            '{"properties": {"traits": {"properties": {"a": {"$ref": "b.json"}}}}}',
            "has no traits to write types of: it refers to another document, b.json.",
        ),
    ],
)
def test_what_is_no_identity_schema_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = schema_of(tmp_path, text)

    result = kratos_sync("traits", file)

    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: {file} {sentence}\n")
    assert result.stdout == ""


def test_a_file_that_is_not_there_is_wrong_use() -> None:
    result = kratos_sync("traits", "nowhere.json")

    assert result.exit_code == 2
    assert "File 'nowhere.json' does not exist." in result.stderr


def test_a_name_that_a_type_would_change_is_refused(tmp_path: Path) -> None:
    # In a class Python makes `_Traits__secret` of it.
    file = schema_of(
        tmp_path, '{"properties": {"traits": {"properties": {"__secret": {}, "email": {}}}}}'
    )

    result = kratos_sync("traits", file)

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: a type would have other names than in the schema: _Traits__secret, email.\n"
    )


def test_names_that_could_not_be_seen_are_escaped_in_the_file_and_on_the_terminal(
    tmp_path: Path,
) -> None:
    names = ["a\u2028b", "zero\u200bwidth", "bidi\u202eover", "c1\x9b31m"]
    properties = {name: {"type": "string"} for name in names}
    traits = {"type": "object", "properties": properties}
    schema = schema_of(tmp_path, json.dumps({"type": "object", "properties": {"traits": traits}}))
    printed = kratos_sync("traits", schema).stdout
    file = tmp_path / "odd_names.py"
    assert kratos_sync("traits", schema, "--output", str(file)).exit_code == 0
    assert printed == file.read_text(encoding="utf-8")
    assert {each for each in printed if not each.isprintable()} == {"\n"}
    module: dict[str, Any] = {}
    exec(printed, module)
    assert list(module["Traits"].__annotations__) == names


def test_a_generator_that_fails_is_named_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(*_: object, **__: object) -> str:
        raise LookupError("a long story")

    monkeypatch.setattr(datamodel_code_generator, "generate", generate)

    result = kratos_sync("traits", str(SCHEMAS[0]))

    assert result.exit_code == 1
    assert result.stderr == "Error: the generator fails on this schema: LookupError.\n"


def test_a_file_that_cannot_be_written_fails(tmp_path: Path) -> None:
    output = tmp_path / "nowhere" / "traits.py"

    result = kratos_sync("traits", str(SCHEMAS[0]), "--output", str(output))

    assert result.exit_code == 1
    assert result.stderr == f"Error: {output} cannot be written: No such file or directory.\n"


def test_without_the_generator_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datamodel_code_generator", None)

    result = kratos_sync("traits", str(SCHEMAS[0]))

    assert result.exit_code == 1
    assert result.stderr == (
        'Error: the generator is not installed: install "kratos-identity-sync[traits]", with pip'
        " or uv.\n"
    )
