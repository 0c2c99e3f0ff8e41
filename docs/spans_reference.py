"""The tables of spans and their attributes, written from `tracing.names`."""

from kratos_sync.infrastructure.observability.tracing.names import SPANS


def spans_table() -> str:
    """A Markdown table of all spans, and one of the attributes of each."""
    rows = [
        f"| `{each.name}` | {each.kind} | {each.process} | {each.meaning} | {each.parent} |"
        for each in SPANS
    ]
    attributes = [
        f"| `{attribute.name}` | `{span.name}` | {attribute.meaning} |"
        for span in SPANS
        for attribute in span.attributes
    ]
    return "\n".join(
        [
            "| span | kind | process | | child of |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "| attribute | of | |",
            "|---|---|---|",
            *attributes,
        ]
    )
