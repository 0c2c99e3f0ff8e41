"""The reference of events, made from the catalogue."""

import json

from kratos_sync.application.event_catalogue import EventDescription, catalogue


def events_sections() -> str:
    """A section of Markdown for each event: meaning, fields, example."""
    return "\n\n".join(map(_section, catalogue().values()))


def _section(event: EventDescription) -> str:
    fields = [
        f"| `{each.name}` | {each.meaning}{'' if each.is_required else ' Optional.'} |"
        for each in event.fields
    ]
    table = ["| field | |", "|---|---|", *fields]
    example = ["```json", json.dumps(event.example, indent=2), "```"]
    return "\n".join(
        [f"## {event.kind}", "", f"`{event.name}`: {event.meaning}", "", *table, "", *example]
    )
