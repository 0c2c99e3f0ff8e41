"""`kratos-sync traits`: the traits of an identity schema as a Python type."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final, is_typeddict

import click

from kratos_sync.api.cli.output import echo, harmless
from kratos_sync.application.json_body import NotJson, decode_strictly
from kratos_sync.application.traits_schema import Schema, UnusableSchema, traits_schema
from kratos_sync.domain.json_values import Json

MOST_BYTES: Final = 1_048_576
DOCSTRING: Final = '''"""The traits of an identity.

Written by `kratos-sync traits` from Kratos' identity schema: do not edit.
"""'''
# The width of lines in the package that it becomes part of is not known here.
UNFORMATTED: Final = "# fmt: off"


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The module to write, in place of any earlier one; by default it is printed.",
)
def traits(file: str, output: Path | None) -> None:
    """Write the traits of the identity schema FILE as a Python type.

    FILE is Kratos' JSON Schema, or - for standard input. The type is a TypedDict named Traits:
    kratos_sync.traits_of gives consumers the traits as one.
    """
    module = written(_schema(file, harmless(file)))
    if output is None:
        echo(*module.splitlines())
        return
    try:
        output.write_text(module, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}.") from None
    echo(f"Wrote {output}.")


def _schema(file: str, name: str) -> Schema:
    try:
        with click.open_file(file, "rb") as content:
            body = content.read(MOST_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{name} cannot be read: {error.strerror}.") from None
    if len(body) > MOST_BYTES:
        raise click.UsageError(f"{name} has more than 1 MiB.")
    try:
        return traits_schema(decode_strictly(body).value)
    except NotJson as error:
        reason = str(error).replace("the body", "it")
        raise click.UsageError(f"{name} cannot be read: {reason}.") from None
    except UnusableSchema as error:
        raise click.UsageError(f"{name} has no traits to write types of: {error}.") from None


def written(schema: Schema) -> str:
    """The module of a schema that is reduced to types. Raises click.ClickException."""
    try:
        import black
        from datamodel_code_generator import InputFileType, LiteralType, PythonVersion, generate
        from datamodel_code_generator.enums import DataModelType
        from datamodel_code_generator.format import Formatter
    except ModuleNotFoundError:
        raise click.ClickException(
            'the generator is not installed: install "kratos-identity-sync[traits]", with pip or'
            " uv."
        ) from None
    try:
        with warnings.catch_warnings(action="ignore"):
            code = generate(
                json.dumps(schema),
                input_file_type=InputFileType.JsonSchema,
                output_model_type=DataModelType.TypingTypedDict,
                target_python_version=PythonVersion.PY_311,
                class_name="Traits",
                special_field_name_prefix="",
                custom_file_header=DOCSTRING,
                disable_future_imports=True,
                enum_field_as_literal=LiteralType.All,
                use_object_type=True,
                use_typed_nullable_map_values=True,
                allow_remote_refs=False,
                # Through the generator, Black would read the settings of the current folder.
                formatters=[Formatter.BUILTIN],
                builtin_format_line_length=88,
            )
        formatted = _escaped(black.format_str(str(code), mode=black.Mode()))
        other_names = _names_beside(formatted, schema)
    except Exception as error:
        raise click.ClickException(
            f"the generator fails on this schema: {type(error).__name__}."
        ) from error
    if other_names:
        listed = ", ".join(other_names)
        raise click.ClickException(f"a type would have other names than in the schema: {listed}.")
    return formatted.replace(DOCSTRING, f"{DOCSTRING}\n\n{UNFORMATTED}", 1)


def _escaped(code: str) -> str:
    """The code with escapes for what is invisible, or a line's end to some: names are literals."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in code
    )


def _names_beside(code: str, schema: Schema) -> list[str]:
    """The names in a type of this code that no object of the schema has.

    A name may be changed by the generator, or by Python: `__name` in a class is another name.
    """
    module: dict[str, object] = {}
    exec(code, module)  # noqa: S102  # it is what is about to be written, of nothing but types
    objects = list(_names_of_objects(schema))
    kinds = [set(kind.__annotations__) for kind in module.values() if is_typeddict(kind)]
    return next((sorted(names) for names in kinds if names not in objects), [])


def _names_of_objects(schema: Json) -> Iterator[set[str]]:
    """The names of the properties of each object in a schema that is reduced to types."""
    if not isinstance(schema, dict):
        return
    below: list[Json] = [schema.get("items"), schema.get("additionalProperties")]
    for keyword in ("properties", "$defs"):
        if isinstance(named := schema.get(keyword), dict):
            below += named.values()
            if named and keyword == "properties":
                yield set(named)
    if isinstance(choices := schema.get("anyOf"), list):
        below += choices
    for each in below:
        yield from _names_of_objects(each)
