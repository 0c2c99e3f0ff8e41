"""Names are those of OpenTelemetry's conventions in one version, and the documentation has them."""

import importlib
import pkgutil
from pathlib import Path

import opentelemetry.semconv._incubating.attributes as incubating
from opentelemetry.semconv.schemas import Schemas

from kratos_sync.infrastructure.observability.tracing import names

PAGE = Path(__file__).parents[4] / "docs/observability.md"


def conventional() -> set[str]:
    """The names of all attributes of the conventions that are installed."""
    modules = [
        importlib.import_module(f"{incubating.__name__}.{module.name}")
        for module in pkgutil.iter_modules(incubating.__path__)
    ]
    stable = importlib.import_module("opentelemetry.semconv.attributes")
    modules += [
        importlib.import_module(f"{stable.__name__}.{module.name}")
        for module in pkgutil.iter_modules(stable.__path__)
    ]
    return {
        value for module in modules for value in vars(module).values() if isinstance(value, str)
    }


def test_every_attribute_is_conventional_or_has_our_prefix() -> None:
    ours = [attribute.name for span in names.SPANS for attribute in span.attributes]
    others = {name for name in ours if not name.startswith("kratos_sync.")}

    assert others
    assert others <= conventional()


def test_the_version_of_the_conventions_is_one_that_exists() -> None:
    assert names.SCHEMA_URL in {schema.value for schema in Schemas}


def test_the_page_gets_the_tables_of_spans_and_attributes() -> None:
    assert "<!-- spans -->" in PAGE.read_text()
