"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose columns stand right where they hold nothing but figures."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True))
    rules = ["---:" if all(map(_is_figure, column)) else "---" for column in columns]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rules, *cells])


def _is_figure(cell: str) -> bool:
    return not cell or cell[0].isdigit()
