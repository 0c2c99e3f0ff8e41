"""Exceptions as Sentry takes them: types, files, functions and lines, without text and values."""

from pathlib import PurePath
from traceback import walk_tb
from types import TracebackType
from typing import Any, Final

from kratos_sync.application.errors import name_of, with_causes

MOST_FRAMES: Final = 50
MOST_CAUSES: Final = 5
MOST_PARTS: Final = 4
"""So many parts of a file's path are kept, the last ones."""
_LIBRARIES: Final = "site-packages"


def exceptions_of(error: BaseException) -> list[dict[str, Any]]:
    """The error after its causes, the innermost first."""
    chain = with_causes(error)[: MOST_CAUSES + 1]
    return [_exception(each) for each in reversed(chain)]


def place_of(exception: dict[str, Any]) -> str:
    """Where it was raised, as ``file:function``."""
    frames = exception.get("stacktrace", {}).get("frames", [])
    return f"{frames[-1]['filename']}:{frames[-1]['function']}" if frames else ""


def _exception(error: BaseException) -> dict[str, Any]:
    frames = _frames(error.__traceback__)
    found: dict[str, Any] = {"type": name_of(type(error)), "value": ""}
    return {**found, "stacktrace": {"frames": frames}} if frames else found


def _frames(traceback: TracebackType | None) -> list[dict[str, Any]]:
    walked = [(frame.f_code, line) for frame, line in walk_tb(traceback)][-MOST_FRAMES:]
    return [
        {
            "filename": _short(code.co_filename),
            "function": code.co_qualname,
            "lineno": line,
            "in_app": _LIBRARIES not in code.co_filename,
        }
        for code, line in walked
    ]


def _short(file: str) -> str:
    """The path of a file in its package, and not where that is installed."""
    parts = PurePath(file).parts
    if _LIBRARIES in parts:
        return "/".join(parts[parts.index(_LIBRARIES) + 1 :])
    return "/".join(parts[-MOST_PARTS:])
