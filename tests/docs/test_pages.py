"""What the pages say exists: links, files, settings, commands."""

import ast
import importlib.util
import re
import shlex
from typing import Final

import click
import pytest

from kratos_sync.api.cli import main
from kratos_sync.infrastructure.observability.definitions import METRICS
from kratos_sync.infrastructure.settings import Settings
from tests.docs.pages import DOCS, NAMES, ROOT, anchors, blocks, links, prose

DECISIONS: Final = sorted((DOCS / "decisions").glob("0*.md"))
WORDS_OF_README: Final = 900
_COMMAND: Final = re.compile(r"(?:\.venv/bin/)?kratos-sync ([^…]+)$")
_NAME: Final = re.compile(r"`([A-Za-z]\w*(?:\.[A-Za-z]\w*)*)(?:\(\))?`")
# Kratos', PostgreSQL's, PgBouncer's, HAProxy's, RabbitMQ's, Docker's and Kubernetes'; and three
# that a migration composes.
OTHERS_WORDS: Final = {
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "checkpoint_timeout",
    "json_query",
    "maxItems",
    "maxLength",
    "max_prepared_statements",
    "net_ticktime",
    "pg_basebackup",
    "pg_read_all_stats",
    "record_answer_events",
    "record_erase_events",
    "record_webhook_events",
    "stop_grace_period",
    "terminationGracePeriodSeconds",
}
_SPAN: Final = re.compile(r"`([^`\n]+)`")


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(name: str) -> None:
    page = ROOT / name
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_ours_that_a_page_names_exists(name: str) -> None:
    files = re.findall(r"`((?:src|tests|docs|deploy|benchmarks)/[\w./-]*\w)/?`", prose(ROOT / name))
    examples = {"src/application/consumers/send_welcome_email.py"}
    missing = [file for file in files if not (ROOT / file).exists() and file not in examples]
    if name == "CHANGELOG.md":
        missing = []  # it names files as they were called then
    assert missing == []


@pytest.mark.parametrize("name", ["status.md", "reconciling.md", "postgresql.md"])
def test_every_message_that_a_page_explains_is_one_that_a_command_prints(name: str) -> None:
    printed = texts_of_the_code()
    rows = re.findall(r"^\| ([^|]*`[^|]*) \|", (DOCS / name).read_text(), re.MULTILINE)
    messages = [span for row in rows for span in _SPAN.findall(row) if " " in span]
    assert messages
    parts = [part.strip() for message in messages for part in message.split("…")]
    assert [part for part in parts if not any(part in text for text in printed)] == []


def texts_of_the_code() -> set[str]:
    """Every string in the code, those of an f-string without their values."""
    texts = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                values = [each.value for each in node.values if isinstance(each, ast.Constant)]
                texts.add("…".join(map(str, values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    return texts


@pytest.mark.parametrize("name", [name for name in NAMES if "decisions" not in name])
def test_every_name_that_a_page_quotes_is_one_of_the_code(name: str) -> None:
    if name == "CHANGELOG.md":
        return  # it has names as they were then
    known = words_of_the_code() | OTHERS_WORDS | {metric.name for metric in METRICS}
    quoted = set(_NAME.findall(prose(ROOT / name)))
    names = {each for each in quoted if "_" in each or re.search("[a-z][A-Z]", each)}
    parts = {part for each in names if not each.endswith(".py") for part in each.split(".")}
    assert {part for part in parts if part not in known and part.lower() not in known} == set()


def words_of_the_code() -> set[str]:
    """Every word in the code, in what measures it, and in what a deployment brings along."""
    files = [
        file
        for folder in ("src", "benchmarks", "deploy")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in {".conf", ".py", ".sh", ".sql", ".yaml", ".yml"}
    ]
    words = set(re.findall(r"\w+", "\n".join(file.read_text() for file in files)))
    return words | set(re.findall(r"CREATE ROLE (\w+)", (DOCS / "operating.md").read_text()))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= WORDS_OF_README


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])
def test_every_command_line_has_a_command_and_options_that_exist(name: str) -> None:
    lines = [
        line for block in blocks("sh") if block.page == name for line in block.text.split("\n")
    ]
    spans = _SPAN.findall(prose(ROOT / name))
    for line in [*lines, *spans]:
        if found := _COMMAND.match(line.strip()):
            check_command_line(shlex.split(found[1], comments=True))


def check_command_line(words: list[str]) -> None:
    """Raise click's error for an unknown command or option; values may be placeholders."""
    command: click.Command | None = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        word = words.pop(0)
        if word == "COMMAND":
            return
        command = command.get_command(click.Context(command), word)
        assert command is not None, word
    assert command is not None
    _, left, _ = command.make_parser(click.Context(command)).parse_args(words)
    assert left == []


def test_every_decision_is_in_the_index_by_its_title() -> None:
    index = (DOCS / "decisions" / "README.md").read_text()
    for decision in DECISIONS:
        number = decision.name.partition("-")[0]
        title = decision.read_text().partition("\n")[0].removeprefix("# ")
        title = title.removeprefix(f"{number}: ")
        assert f"| [{number}]({decision.name}) | {title} |" in index


def test_every_setting_is_described() -> None:
    described = _settings_reference()
    assert described.DESCRIPTIONS.keys() == Settings.model_fields.keys()
    table = described.settings_table()
    assert all(f"| `{name.upper()}` |" in table for name in Settings.model_fields)


def test_every_metric_is_described() -> None:
    assert "<!-- metrics -->" in (DOCS / "observability.md").read_text()
    tables = _reference("metrics_reference.py").metrics_tables()
    for metric in METRICS:
        assert f"| `{metric.name}` | {metric.kind} | " in tables
        assert metric.help in tables
        assert all(f"`{name}`" in tables for name in metric.labels)


def _settings_reference():  # type: ignore[no-untyped-def]  # a module
    return _reference("settings_reference.py")


def _reference(file: str):  # type: ignore[no-untyped-def]  # a module
    spec = importlib.util.spec_from_file_location("reference", DOCS / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
