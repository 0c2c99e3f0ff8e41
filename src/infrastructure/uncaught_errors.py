"""What is logged of errors that nobody caught, and of Python's warnings: no text of theirs.

Python itself would print them to standard error, with whatever their text quotes.
"""

import sys
import threading
import warnings
from pathlib import Path
from traceback import extract_tb
from types import TracebackType
from typing import Final, TextIO

import structlog

INNERMOST: Final = 8
"""So many places of a traceback are told."""

log = structlog.get_logger()


def log_uncaught_errors() -> None:
    """From now on log uncaught errors of any thread, and warnings, by type and place."""
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash
    sys.unraisablehook = _log_unraisable
    warnings.showwarning = _log_warning


def _log_crash(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.critical("crashed", error=_name(kind), causes=_causes(error), places=_places(traceback))


def _log_thread_crash(crash: threading.ExceptHookArgs) -> None:
    thread = None if crash.thread is None else crash.thread.name
    kind, places = _name(crash.exc_type), _places(crash.exc_traceback)
    log.critical("thread_crashed", thread=thread, error=kind, places=places)


def _log_unraisable(ignored: "sys.UnraisableHookArgs") -> None:
    log.error("error_ignored", error=_name(ignored.exc_type), places=_places(ignored.exc_traceback))


def _log_warning(  # noqa: PLR0917  # as `warnings` calls it
    message: Warning | str,  # noqa: ARG001  # it may quote what it warns of
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    log.warning("python_warning", category=_name(category), places=[_place(filename, lineno)])


def _causes(error: BaseException) -> list[str]:
    causes = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    while cause is not None:
        causes.append(_name(type(cause)))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return causes


def _places(traceback: TracebackType | None) -> list[str]:
    frames = extract_tb(traceback)[-INNERMOST:] if traceback is not None else ()
    return [_place(frame.filename, frame.lineno or 0) for frame in frames]


def _place(filename: str, line: int) -> str:
    return f"{Path(filename).name}:{line}"


def _name(kind: type[BaseException]) -> str:
    builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if builtin else f"{kind.__module__}.{kind.__qualname__}"
