"""How an error is described: a log line has its type and place, only the ledger has its text."""

import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from traceback import FrameSummary, extract_tb
from typing import Final

from kratos_sync.domain.json_values import Json

LONGEST_ERROR: Final = 8_000
LONGEST_SHAPE: Final = 200
LONGEST_TYPE: Final = 200
MOST_CAUSES: Final = 20
_LONGEST_LINE: Final = 1_000

_ABBREVIATIONS: Final = (
    "API|CSS|CSV|DELETE|DNS|EOF|FTP|GET|HTML|HTTP|HTTPS|ID|IMAP|INSERT|IO|IP|JSON|JWT|NOT|NULL|OS"
    "|PATCH|POST|PUT|SELECT|SMTP|SQL|SSL|TCP|TLS|UDP|UPDATE|URI|URL|UTC|UTF|UUID|XML|YAML"
)
# What differs from one event to the next, and what may be a person's.
_PARTICULARS: Final = (
    (re.compile(r"\b(\w+://[^/\s@]+)/\S*"), r"\1/…"),
    (re.compile(r"\S+@\S+"), "…"),
    (re.compile(r"=\s*\([^()]*\)"), "=(…)"),
    # Not the apostrophes of "can't" and "O'Brien"; a quote that is never closed goes to the end.
    (re.compile(r"(?<!\w)(['\"`])(?:.*?\1(?!\w)|.*)|“[^”]*”?|‘[^’]*’?|«[^»]*»?"), "'…'"),
    (re.compile(r"\b[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,}){0,4}\b"), "#"),
    (re.compile(r"[+-]?\d[\d.,:_]*"), "#"),
    # Names: a word with a capital that begins no sentence, words that a dot joins, what is not
    # English, and capitals that are no usual abbreviation.
    (re.compile(r"(?<=[\w,;:)] )[A-Z][a-z]\w*|\b\w*[^\x00-\x7f]\w*\b"), "…"),
    (re.compile(r"(?<![\w/.:])[A-Za-z]\w*(?:\.\w+)+\b"), "…"),
    (re.compile(rf"(?<=[\w,;:)] )(?!(?:{_ABBREVIATIONS})\b)[A-Z]{{2,}}\b"), "…"),
)


def summary(error: BaseException, of: type | None = None) -> dict[str, str]:
    """The fields of a log line about an error: its type, and its place as `place_of` gives it."""
    return {"error": type(error).__name__, "at": place_of(extract_tb(error.__traceback__), of)}


def details(error: BaseException) -> dict[str, Json]:
    """The types of an error and of its causes, and where it was raised, innermost place last.

    The texts are left out: a driver's or a parser's message may quote what a person typed.
    """
    types: list[Json] = [
        f"{type(each).__module__}.{type(each).__qualname__}" for each in with_causes(error)
    ]
    places: list[Json] = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)
    ]
    return {"error": types[0], "causes": types[1:], "places": places}


def with_causes(error: BaseException, *, suppressed: bool = False) -> list[BaseException]:
    """The error and its causes, innermost last, each once: `raise error from error` is a circle.

    With ``suppressed`` also those that a ``from None`` hides.
    """
    chain: dict[int, BaseException] = {}
    cause: BaseException | None = error
    while cause is not None and id(cause) not in chain and len(chain) <= MOST_CAUSES:
        chain[id(cause)] = cause
        is_hidden = cause.__suppress_context__ and not suppressed
        cause = cause.__cause__ or (None if is_hidden else cause.__context__)
    return [*chain.values()]


def place_of(frames: Sequence[FrameSummary], of: type | None = None) -> str:
    """The innermost place of a stack, as ``file:line``.

    With ``of`` the innermost in the package of that class, and not in a library that it calls.
    """
    if not frames:
        return ""
    source = "" if of is None else _source_of(of)
    own = [each for each in frames if source and each.filename.startswith(source)]
    frame = [*frames, *own][-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _source_of(kind: type) -> str:
    """The folder of the top package of a class, or the file of its module."""
    module = sys.modules.get(kind.__module__.partition(".")[0])
    file = getattr(module, "__file__", None) or ""
    return str(Path(file).parent) + os.sep if Path(file).name == "__init__.py" else file


def name_of(kind: type[BaseException]) -> str:
    """The name of an error's type as a traceback has it; our own go by their bare names."""
    module = str(kind.__module__)
    if module == "builtins" or module.startswith("kratos_sync."):
        return kind.__qualname__[:LONGEST_TYPE]
    return f"{module}.{kind.__qualname__}"[:LONGEST_TYPE]


def explain(error: BaseException) -> str:
    """The error and its traceback, cut to a bounded size."""
    return shorten("".join(traceback.format_exception(error)).strip())


def shorten(text: str) -> str:
    """Cut a text in the middle to a bounded size."""
    if len(text) <= LONGEST_ERROR:
        return text
    half = LONGEST_ERROR // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"


def shape_of(error: BaseException) -> str:
    """The first line of the error's message, without what differs between events.

    Numbers, ids, addresses, names and quoted text are left out, as far as their form shows them:
    errors of one kind have one shape.
    """
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001  # an error that has no text is one shape too
        return "(no message)"
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")[:_LONGEST_LINE]
    for pattern, instead in _PARTICULARS:
        line = pattern.sub(instead, line)
    return line[:LONGEST_SHAPE]
