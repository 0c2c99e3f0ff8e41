"""Draws a trace: `python docs/trace_picture.py` renders trace.json, which a test received.

KEEP_TRACE=docs/observability/trace.json python -m pytest tests/end_to_end/test_traces.py
python docs/trace_picture.py
"""

import json
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent / "observability"
DATA: Final = FOLDER / "trace.json"
PICTURE: Final = FOLDER / "trace.svg"

WIDTH, LEFT, RIGHT = 960, 330, 30
TOP, ROW, BAR = 78, 26, 14
LONGEST_GAP: Final = 20_000_000
"""A longer time in which nothing happens, in nanoseconds, is cut out."""
BREAK, SHORTEST_PIECE, SHORTEST_BAR = 46, 70, 3
COLOURS: Final = {
    "SERVER": "#2b6cb0",
    "PRODUCER": "#805ad5",
    "CONSUMER": "#2f855a",
    "CLIENT": "#b7791f",
    "INTERNAL": "#718096",
}
ERROR: Final = "#c53030"
TEXT, MUTED, LINE = "#1f2933", "#52606d", "#7b8794"


class Piece(NamedTuple):
    """A time in which something happens, and where it is drawn."""

    start: int
    end: int
    x: float
    width: float

    def at(self, time: int) -> float:
        return self.x + (time - self.start) / max(self.end - self.start, 1) * self.width


def picture(spans: Sequence[dict[str, Any]]) -> str:
    """The spans as an SVG: bars over time, children below parents, links as dashed lines."""
    rows = _rows(spans)
    pieces = _pieces(spans)
    place = {span["span_id"]: number for number, (span, _) in enumerate(rows)}
    bars = {span["span_id"]: _bar(span, pieces) for span, _ in rows}
    height = TOP + ROW * len(rows) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" aria-labelledby="t d">',
        '  <title id="t">A trace of one webhook</title>',
        '  <desc id="d">From the webhook and its commit to two consumers and the Admin API, with a'
        " retry in a worker that was restarted, and a replay.</desc>",
        '  <defs><marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7"'
        f' markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" fill="{LINE}"/></marker>'
        "</defs>",
        f'  <rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        _text(30, 34, "A registration, as a collector received it", 15, TEXT, "600"),
        _legend(),
    ]
    lines += [_scale(piece, height) for piece in pieces]
    lines += [_break(*pair, height) for pair in pairwise(pieces)]
    for number, (span, depth) in enumerate(rows):
        lines += _row(span, depth, TOP + ROW * number, bars[span["span_id"]])
    for span, _ in rows:
        for _, linked in span["links"]:
            if linked in place:
                lines.append(
                    _link(
                        place[linked], bars[linked], place[span["span_id"]], bars[span["span_id"]]
                    )
                )
    return "\n".join([*lines, "</svg>", ""])


def _rows(spans: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """The spans with their depth, children after parents."""
    ids = {span["span_id"] for span in spans}
    in_order = sorted(spans, key=lambda span: span["start"])
    rows: list[tuple[dict[str, Any], int]] = []

    def add(span: dict[str, Any], depth: int) -> None:
        rows.append((span, depth))
        for each in in_order:
            if each["parent_id"] == span["span_id"]:
                add(each, depth + 1)

    for span in in_order:
        if span["parent_id"] not in ids:
            add(span, 0)
    return rows


def _pieces(spans: Sequence[dict[str, Any]]) -> list[Piece]:
    times: list[list[int]] = []
    for span in sorted(spans, key=lambda span: span["start"]):
        if times and span["start"] - times[-1][1] <= LONGEST_GAP:
            times[-1][1] = max(times[-1][1], span["end"])
        else:
            times.append([span["start"], span["end"]])
    room = WIDTH - LEFT - RIGHT - BREAK * (len(times) - 1) - SHORTEST_PIECE * len(times)
    total = sum(end - start for start, end in times)
    pieces, x = [], float(LEFT)
    for start, end in times:
        width = SHORTEST_PIECE + room * (end - start) / total
        pieces.append(Piece(start, end, x, width))
        x += width + BREAK
    return pieces


def _bar(span: dict[str, Any], pieces: Sequence[Piece]) -> tuple[float, float]:
    piece = next(each for each in pieces if each.start <= span["start"] <= each.end)
    start = piece.at(span["start"])
    return start, max(piece.at(span["end"]) - start, SHORTEST_BAR)


def _row(span: dict[str, Any], depth: int, y: int, bar: tuple[float, float]) -> list[str]:
    x, width = bar
    colour = ERROR if span["is_error"] else COLOURS[span["kind"]]
    attributes = span["attributes"]
    says = _milliseconds(span["end"] - span["start"])
    if attempt := attributes.get("kratos_sync.attempt"):
        says += f" · attempt {attempt}"
    if status := attributes.get("http.response.status_code"):
        says += f" · {status}"
    if span["is_error"] and span["kind"] == "CONSUMER":
        says += f" · {attributes['error.type'].rpartition('.')[2]}"
    is_left = x + width + 6 * len(says) > WIDTH - 12
    says_at, anchor = (x - 6, "end") if is_left else (x + width + 6, "start")
    return [
        _text(30 + 16 * depth, y + 11, span["name"], 12, TEXT),
        f'  <rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>',
        _text(says_at, y + 11, says, 10.5, ERROR if span["is_error"] else MUTED, anchor=anchor),
    ]


def _link(of: int, bar: tuple[float, float], to: int, other: tuple[float, float]) -> str:
    x, y = bar[0] + bar[1], TOP + ROW * of + BAR
    x2, y2 = other[0] + 6, TOP + ROW * to - 1
    middle = (y + y2) / 2
    return (
        f'  <path d="M{x - 4:.1f} {y}C{x - 4:.1f} {y2 - 8} {x2:.1f} {middle} {x2:.1f} {y2}"'
        f' fill="none" stroke="{LINE}" stroke-width="1.2" stroke-dasharray="4 3"'
        ' marker-end="url(#a)"/>'
    )


def _scale(piece: Piece, height: int) -> str:
    return f'  <path d="M{piece.x:.1f} {height - 22}h{piece.width:.1f}" stroke="{LINE}"/>'


def _break(piece: Piece, after: Piece, height: int) -> str:
    middle = (piece.x + piece.width + after.x) / 2
    return (
        f'  <path d="M{middle:.1f} {TOP - 8}V{height - 26}" stroke="#cbd2d9"'
        ' stroke-dasharray="2 4"/>\n'
        + _text(
            middle,
            height - 8,
            f"+ {_milliseconds(after.start - piece.end)}",
            10.5,
            MUTED,
            anchor="middle",
        )
    )


def _legend() -> str:
    parts, x = [], 30
    for kind, colour in [*COLOURS.items(), ("error", ERROR)]:
        parts.append(f'  <rect x="{x}" y="48" width="10" height="10" rx="2" fill="{colour}"/>')
        parts.append(_text(x + 15, 57, kind, 10.5, MUTED))
        x += 92
    parts.append(_text(x, 57, "dashed: a link, where a new trace begins", 10.5, MUTED))
    return "\n".join(parts)


def _milliseconds(nanoseconds: int) -> str:
    milliseconds = nanoseconds / 1e6
    return f"{milliseconds / 1e3:.1f} s" if milliseconds >= 1_000 else f"{milliseconds:.1f} ms"  # noqa: PLR2004


def _text(  # noqa: PLR0917  # as they stand in the element
    x: float,
    y: float,
    says: str,
    size: float,
    colour: str,
    weight: str = "400",
    anchor: str = "start",
) -> str:
    return (
        f'  <text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}"'
        f' font-weight="{weight}" fill="{colour}" font-family="system-ui, sans-serif">'
        f"{escape(says)}</text>"
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(json.loads(DATA.read_text())))
