"""`kratos-sync events`: the catalogue of events."""

import json
from collections.abc import Iterator
from importlib.metadata import version

import click

from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import Line, Styled, echo, echo_json, indented
from kratos_sync.application.event_catalogue import EventDescription, asyncapi, catalogue


@click.command()
@click.argument("name", required=False)
@click.option("--asyncapi", "as_asyncapi", is_flag=True, help="Print an AsyncAPI 3 document.")
@options.as_json
def events(name: str | None, *, as_asyncapi: bool, as_json: bool) -> None:
    """List the events that consumers subscribe to, or describe the event NAME.

    NAME is the name on the wire or the class. With --json prints the JSON Schemas of the payloads.
    """
    found = catalogue()
    if name is not None:
        found = {each.name: each for each in found.values() if name in {each.name, each.kind}}
        if not found:
            raise click.UsageError(f"there is no event {name}: there are {', '.join(catalogue())}.")
    if as_asyncapi:
        echo_json(asyncapi(version("kratos-identity-sync")))
    elif as_json:
        echo_json({each.name: each.schema for each in found.values()})
    elif name is None:
        echo(*(line for each in found.values() for line in _brief(each)))
    else:
        echo(*(line for each in found.values() for line in _whole(each)))


def _brief(event: EventDescription) -> Iterator[Line]:
    yield Styled(event.name, "bold"), f"  {event.kind}"
    yield f"  {event.meaning}"


def _whole(event: EventDescription) -> Iterator[Line]:
    yield from _brief(event)
    yield ""
    for field in event.fields:
        optional = "" if field.is_required else " (optional)"
        yield f"  {field.name}{optional}: {field.meaning}"
    yield ""
    yield from indented(json.dumps(event.example, indent=2), 2)
