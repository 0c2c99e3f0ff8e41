"""What the ledger is told of an error."""

import re
import traceback
from typing import Final

LONGEST_ERROR: Final = 8_000
LONGEST_SHAPE: Final = 200
LONGEST_TYPE: Final = 200
_LONGEST_LINE: Final = 1_000

# What differs from one event to the next, and what may be a person's.
_PARTICULARS: Final = (
    (re.compile(r"\S+@\S+"), "…"),
    (re.compile(r"=\s*\([^()]*\)"), "=(…)"),
    # Not the apostrophes of "can't" and "O'Brien"; and one that is never closed goes on to the end.
    (re.compile(r"(?<!\w)(['\"`])(?:.*?\1(?!\w)|.*)|“[^”]*”?|‘[^’]*’?|«[^»]*»?"), "'…'"),
    (re.compile(r"\b[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,}){0,4}\b"), "#"),
    (re.compile(r"[+-]?\d[\d.,:_]*"), "#"),
    # Names: a word with a capital that begins no sentence, and what is not English.
    (re.compile(r"(?<=[\w,;:)] )[A-Z][a-z]\w*|\b\w*[^\x00-\x7f]\w*\b"), "…"),
)


class OtherLedgerUnavailable(Exception):
    """A consumer raised LedgerUnavailable: for our own ledger only the unit of work does that."""


def explain(error: BaseException) -> str:
    """Give the error and its traceback, cut in the middle to a bounded size."""
    return shorten("".join(traceback.format_exception(error)).strip())


def shorten(text: str) -> str:
    """Cut a text in the middle to a bounded size."""
    if len(text) <= LONGEST_ERROR:
        return text
    half = LONGEST_ERROR // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"


def type_of(error: BaseException) -> str:
    """Give the error's type as a traceback names it; our own go by their bare names."""
    kind = type(error)
    if kind.__module__ == "builtins" or kind.__module__.startswith("application."):
        return kind.__qualname__[:LONGEST_TYPE]
    return f"{kind.__module__}.{kind.__qualname__}"[:LONGEST_TYPE]


def shape_of(error: BaseException) -> str:
    """Give the first line of the error's message, without what differs between events.

    Numbers, ids, addresses, names and whatever stands in quotes are left out, so that errors of one
    kind have one shape, and it quotes as little as can be told from its form.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # an error that cannot even be told is one shape too
        return "(no message)"
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")[:_LONGEST_LINE]
    for pattern, instead in _PARTICULARS:
        line = pattern.sub(instead, line)
    return line[:LONGEST_SHAPE]
