"""`kratos-sync hooks`: prints the configuration that makes Kratos call this service."""

import os
import re
from typing import Any, Final

import click
import yaml

from kratos_sync.api.cli.output import echo, echo_json, indented
from kratos_sync.application.kratos_config.hooks import (
    ALL_METHODS,
    SYNC_PATH,
    Receiver,
    configuration,
    split,
)
from kratos_sync.application.kratos_config.templates import MAPPER, inline

PLACEHOLDER: Final = "@KRATOS_WEBHOOK_API_KEY@"
DEFAULT_URL: Final = f"http://127.0.0.1:8000{SYNC_PATH}"
_EVERY: Final = ",".join(ALL_METHODS)
_WIDEST: Final = 1_000_000
_PLAIN: Final = re.compile(
    r"[A-Za-z][A-Za-z_.-]*|(file|base64|https?)://[\w./:=+-]*[\w/=]", re.ASCII
)
HEADER: Final = "KRATOS_WEBHOOK_API_KEY_HEADER"
KEYS: Final = "KRATOS_WEBHOOK_API_KEYS"


def key_header() -> str:
    """Return the header that holds the key. Raises click.UsageError for one that is taken."""
    from pydantic import TypeAdapter, ValidationError

    from kratos_sync.infrastructure.settings import KeyHeader

    header = _setting(HEADER) or "X-Api-Key"
    try:
        return TypeAdapter[str](KeyHeader).validate_python(header)
    except ValidationError as error:
        raise click.UsageError(f"{HEADER}: {error.errors()[0]['msg']}") from None


def _first_key() -> str:
    from kratos_sync.infrastructure.secret_files import Refused, from_files

    name = KEYS.lower()
    given = from_files(os.environ, [name]).get(name) or _setting(KEYS) or ""
    if isinstance(given, Refused):
        raise click.UsageError(f"{given.reason}.")
    for key in re.split("[,\n]", given):
        if key.strip():
            return key.strip()
    raise click.UsageError(f"set {KEYS}: it is empty.")


def _setting(name: str) -> str | None:
    from kratos_sync.infrastructure.secret_files import written_in_dotenv

    return os.environ.get(name) or written_in_dotenv().get(name)


class _Dumper(yaml.SafeDumper):
    """Indents lists as people do, and quotes texts that are not plain names or URLs."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)

    def text(self, value: str) -> yaml.ScalarNode:
        # A key of digits must stay a text, and serve.sh looks for its placeholder in quotes.
        style = None if _PLAIN.fullmatch(value) else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


class _AnchoringDumper(_Dumper):
    """Writes the first hook's settings in full, and merges them into those of the others."""

    _first: yaml.Node | None = None

    def generate_anchor(self, node: yaml.Node) -> str:  # noqa: ARG002
        return "webhook"

    def settings(self, value: dict[str, Any]) -> yaml.Node:
        if "headers" not in value:
            return self.represent_dict(value)
        if self._first is None:
            self._first = self.represent_dict(value)
            return self._first
        merge = yaml.ScalarNode("tag:yaml.org,2002:merge", "<<")
        own = (self.represent_data("headers"), self.represent_data(value["headers"]))
        return yaml.MappingNode("tag:yaml.org,2002:map", [(merge, self._first), own])


_Dumper.add_representer(str, _Dumper.text)
_AnchoringDumper.add_representer(dict, _AnchoringDumper.settings)


def to_yaml(configuration: dict[str, Any], *, with_anchor: bool) -> str:
    """Write the configuration; without an anchor each hook can be pasted by itself."""
    dumper = _AnchoringDumper if with_anchor else _Dumper
    options: dict[str, Any] = {"sort_keys": False, "width": _WIDEST, "allow_unicode": True}
    return str(yaml.dump(configuration, Dumper=dumper, **options))


def _url(ctx: click.Context, param: click.Parameter, value: str) -> str:  # noqa: ARG001
    parts = split(value)
    if parts is None or not value.isprintable() or " " in value:
        raise click.BadParameter("it is no http:// or https:// URL.")
    return value if parts.path not in ("", "/") else f"{value.rstrip('/')}{SYNC_PATH}"


def _methods(ctx: click.Context, param: click.Parameter, value: str) -> list[str]:  # noqa: ARG001
    chosen = [name.strip() for name in value.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in ALL_METHODS]:
        raise click.BadParameter(f"no method with hooks: {', '.join(unknown)}. There are {_EVERY}.")
    return chosen


def _mapper(ctx: click.Context, param: click.Parameter, value: str) -> str:  # noqa: ARG001
    if value == "base64":
        return inline()
    if not value.startswith("file:///") or value == "file:///" or not value.isprintable():
        raise click.BadParameter("say base64, or file:/// and the path where Kratos finds it.")
    return value


@click.command()
@click.option(
    "--url", default=DEFAULT_URL, show_default=True, callback=_url, help="This service's address."
)
@click.option(
    "--methods",
    default=_EVERY,
    callback=_methods,
    help="Comma separated, by default all; any other goes by the list directly under `after`.",
)
@click.option(
    "--mapper",
    default="base64",
    show_default=True,
    callback=_mapper,
    metavar="base64|file:///PATH",
    help="Where Kratos finds the template of the body.",
)
@click.option("--session", is_flag=True, help="Log people in when they have registered.")
@click.option("--plain", is_flag=True, help="Write every hook out, without YAML's anchor.")
@click.option("--key-from-env", is_flag=True, help="Print the key itself, not a placeholder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, which Kratos reads as well.")
def hooks(
    *,
    url: str,
    methods: list[str],
    mapper: str,
    session: bool,
    plain: bool,
    key_from_env: bool,
    as_json: bool,
) -> None:
    """Print the hooks that make Kratos call this service for every flow and method.

    Paste them into Kratos' configuration. A method's hooks replace those of its flow: keep the ones
    that you have, such as `session`, behind these.
    """
    key = _first_key() if key_from_env else PLACEHOLDER
    printed = configuration(url, key_header(), key, mapper, methods, with_session=session)
    if as_json:
        echo_json(printed, indent=2)
        return
    text = _heading(url, mapper, has_key=key_from_env) + to_yaml(printed, with_anchor=not plain)
    echo(*text.removesuffix("\n").split("\n"))


def _heading(url: str, mapper: str, *, has_key: bool) -> str:
    is_usual = Receiver().is_called_by(url)
    command = f"kratos-sync check{'' if is_usual else ' --url …'}"
    lines = [f"Merge this into Kratos' configuration, and let `{command}` read the result."]
    if not has_key:
        lines.append(f"Put a key of KRATOS_WEBHOOK_API_KEYS where {PLACEHOLDER} stands.")
    if mapper.startswith("file:"):
        path = mapper.removeprefix("file://")
        lines += [f"{path} holds:", "", *indented(MAPPER, 2)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
