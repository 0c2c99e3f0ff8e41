"""`kratos-sync hooks`."""

from typing import Final

import click

from api.commands.hooks_yaml import to_yaml
from api.commands.quoting import echo, echo_json, indented
from api.commands.webhook_settings import first_key, key_header
from application.kratos_config.flows import ALL_METHODS
from application.kratos_config.hook import SYNC_PATH, Receiver, split
from application.kratos_config.mapper import MAPPER, inline
from application.kratos_config.printed import Wanted, configuration

PLACEHOLDER: Final = "@KRATOS_WEBHOOK_API_KEY@"
DEFAULT_URL: Final = f"http://127.0.0.1:8000{SYNC_PATH}"
_EVERY: Final = ",".join(ALL_METHODS)


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
@click.option("--url", default=DEFAULT_URL, show_default=True, callback=_url, help="Our address.")
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
@click.option("--json", "as_json", is_flag=True, help="JSON, which Kratos reads as well.")
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
    """Print the hooks that make Kratos tell us of every flow and method, ready to paste.

    A method's hooks replace those of its flow: keep the ones that you have, such as `session`,
    behind ours.
    """
    key = first_key() if key_from_env else PLACEHOLDER
    wanted = Wanted(url, key_header(), key, mapper, methods, session)
    printed = configuration(wanted)
    if as_json:
        echo_json(printed, indent=2)
        return
    text = _heading(wanted, key_from_env) + to_yaml(printed, with_anchor=not plain)
    echo(*text.removesuffix("\n").split("\n"))


def _heading(wanted: Wanted, has_key: bool) -> str:
    is_usual = Receiver().is_called_by(wanted.url)
    command = f"kratos-sync check{'' if is_usual else ' --url …'}"
    lines = [f"Merge this into Kratos' configuration, and let `{command}` read what comes of it."]
    if not has_key:
        lines.append(f"Put a key of KRATOS_WEBHOOK_API_KEYS where {PLACEHOLDER} stands.")
    if wanted.body.startswith("file:"):
        path = wanted.body.removeprefix("file://")
        lines += [f"{path} holds:", "", *indented(MAPPER, 2)]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
