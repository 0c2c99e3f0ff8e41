"""The broken configurations say in comments what a check must find on each of their lines."""

import json
import re
from pathlib import Path
from time import process_time

import pytest

from kratos_sync.application.kratos_config.templates import MAPPER, inline
from tests.api.cli.invoking import kratos_sync

BROKEN = sorted((Path(__file__).parent / "broken_kratos").glob("*.yml"))
DEPLOYED = Path(__file__).parents[3] / "deploy/kratos/kratos.yml"
ONE_HOOK = """\
selfservice:
  flows:
    login:
      after:
        hooks:
          - hook: web_hook
            config:
              url: https://canary:canary@canary.example.org/kratos/sync-identity?key=canary#canary
              method: canary
              body: canary
              headers: {Content-Type: canary}
              auth: {type: canary, config: {in: canary, name: canary, value: canary}}
"""


def expected(text: str) -> set[tuple[int, str, str]]:
    return {
        (number, severity, rule)
        for number, line in enumerate(text.splitlines(), 1)
        for severity, rule in re.findall(r"# (error|warning|note): ([a-z-]+)", line)
    }


def file_of(tmp_path: Path, content: str, name: str = "kratos.yml") -> str:
    path = tmp_path / name
    path.write_text(content)
    return str(path)


def test_there_are_seven_broken_configurations() -> None:
    assert len(BROKEN) == 7


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_every_gap_of_a_broken_configuration_is_reported_with_its_line(path: Path) -> None:
    result = kratos_sync("check", str(path), "--json")

    report = json.loads(result.stdout)
    found = {(f["line"], f["severity"], f["rule"]) for f in report["findings"]}
    assert found == expected(path.read_text())
    assert (result.exit_code, report["passed"]) == (1, False)


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_people_get_the_line_first_and_a_table_last(path: Path) -> None:
    result = kratos_sync("check", str(path))

    printed = {
        (int(line), severity)
        for line, severity in re.findall(
            rf"^{re.escape(str(path))}:(\d+): (error|warning|note): ", result.stdout, re.MULTILINE
        )
    }
    assert printed == {(line, severity) for line, severity, _ in expected(path.read_text())}
    assert re.search(r"^FLOW +COVERED +NOT COVERED +OFF", result.stdout, re.MULTILINE)
    assert "Not every flow is covered: " in result.stdout
    assert "k3y-of-no-worth" not in result.output


def test_our_own_configuration_has_no_fault() -> None:
    result = kratos_sync("check", str(DEPLOYED), "--strict")

    assert result.exit_code == 0
    assert "Every flow that is on is covered: no findings." in result.stdout
    assert json.loads(kratos_sync("check", str(DEPLOYED), "--json").stdout)["findings"] == []


def test_no_value_of_the_file_is_shown(tmp_path: Path) -> None:
    file = file_of(tmp_path, ONE_HOOK)

    for result in (kratos_sync("check", file), kratos_sync("check", file, "--json")):
        assert result.exit_code == 1
        assert "canary" not in result.output


def test_a_warning_passes_unless_it_is_to_be_strict(tmp_path: Path) -> None:
    old = file_of(tmp_path, DEPLOYED.read_text().replace("v26.2.0", "v1.3.1"))

    assert kratos_sync("check", old).exit_code == 0
    assert kratos_sync("check", old, "--strict").exit_code == 1


def test_the_header_is_the_settings(tmp_path: Path) -> None:
    header = "KRATOS_WEBHOOK_API_KEY_HEADER"
    result = kratos_sync("check", str(DEPLOYED), "--json", **{header: "X-Other"})

    assert result.exit_code == 1
    assert {f["rule"] for f in json.loads(result.stdout)["findings"]} >= {"auth-name"}
    assert kratos_sync("check", str(DEPLOYED), **{header: None}).exit_code == 0


def test_another_address_of_ours_can_be_named(tmp_path: Path) -> None:
    moved = file_of(tmp_path, DEPLOYED.read_text().replace("/kratos/sync-identity", "/moved"))

    assert kratos_sync("check", moved).exit_code == 1
    assert kratos_sync("check", moved, "--url", "http://api:8000/moved").exit_code == 0


@pytest.mark.parametrize("keys", [["kratos", "config"], ["services", "identity", "config"]])
def test_values_of_a_helm_chart_and_projects_of_the_ory_network_are_read(
    tmp_path: Path, keys: list[str]
) -> None:
    lines = DEPLOYED.read_text().splitlines()
    depth = len(keys)
    above = [f"{'  ' * level}{key}:" for level, key in enumerate(keys)]
    file = file_of(tmp_path, "\n".join(above + [f"{'  ' * depth}{line}" for line in lines]))

    assert kratos_sync("check", file).exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("kratos.toml", "[selfservice]", "TOML is not read"),
        ("kratos.yml", "services: {}", "no Kratos configuration"),
        ("kratos.yml", "selfservice: later", "no Kratos configuration"),
        ("kratos.yml", "- selfservice", "not a map"),
        ("kratos.yml", "", "empty"),
        ("kratos.yml", "dsn: *s3cr3t", "line 1, column 6"),
        ("kratos.yml", "a: [b", "line 1"),
    ],
)
def test_what_is_no_kratos_configuration_is_wrong_use(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    result = kratos_sync("check", file_of(tmp_path, content, name))

    assert result.exit_code == 2
    assert said in result.stderr
    assert "s3cr3t" not in result.output


def test_a_file_that_is_not_there_is_wrong_use(tmp_path: Path) -> None:
    assert kratos_sync("check", str(tmp_path / "none.yml")).exit_code == 2


def test_a_configuration_can_be_piped_in() -> None:
    result = kratos_sync("check", "-", typed=DEPLOYED.read_text())

    assert result.exit_code == 0


def test_a_name_steers_no_terminal(tmp_path: Path) -> None:
    hooks = "{hooks: [{hook: session}]}"
    file = file_of(
        tmp_path, f'selfservice: {{flows: {{login: {{after: {{"\\e[31m": {hooks}}}}}}}}}'
    )

    assert "\x1b" not in kratos_sync("check", file).output


def test_a_template_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    beside = file_of(tmp_path, DEPLOYED.read_text())
    elsewhere = file_of(tmp_path / "empty", DEPLOYED.read_text())
    template = tmp_path / "identity.mapper.jsonnet"

    template.write_text((DEPLOYED.parent / "identity.mapper.jsonnet").read_text())
    assert json.loads(kratos_sync("check", beside, "--json").stdout)["findings"] == []
    template.write_text("function(ctx) { identity: ")
    assert kratos_sync("check", beside).exit_code == 1
    assert kratos_sync("check", elsewhere, "--strict").exit_code == 0
    assert "was not checked" in kratos_sync("check", elsewhere).stdout


def test_the_text_of_a_template_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "identity.mapper.jsonnet").write_text("function(ctx) error 'canary' + canary(")

    assert "canary" not in kratos_sync("check", file_of(tmp_path, DEPLOYED.read_text())).output


def test_a_large_template_with_comments_takes_no_time(tmp_path: Path) -> None:
    template = MAPPER + "/* x */" * 20_000 + "// /*" * 10_000
    text = DEPLOYED.read_text().replace(
        "file:///etc/config/kratos/identity.mapper.jsonnet", inline(template)
    )
    began = process_time()

    assert kratos_sync("check", file_of(tmp_path, text), "--strict").exit_code == 0
    assert process_time() - began < 10


def test_a_flood_of_findings_is_cut(tmp_path: Path) -> None:
    file = file_of(tmp_path, "selfservice: {}\n" + "dsn: a\n" * 300)

    result = kratos_sync("check", file)

    assert "… and " in result.stdout
    assert len(result.stdout.splitlines()) < 900
