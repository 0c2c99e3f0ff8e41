"""Logging: one line for each event, without the text of errors and messages."""

import logging
import re
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from traceback import FrameSummary, extract_tb
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from kratos_sync.application.errors import name_of, place_of, with_causes
from kratos_sync.application.pipeline.outcomes import add_delivery

PACKAGE: Final = "kratos_sync"
# Dramatiq logs a message's content, which may be anything, under our module's name.
ACTOR: Final = "kratos_sync.infrastructure.bus.actor."
MOST_PLACES: Final = 8
# Lines of asyncio and uvloop continue with the representations of callbacks and errors.
_QUOTED: Final = re.compile(r"\s*[\n<(].*", re.DOTALL)

log = structlog.get_logger()


def configure_logging(
    log_format: Literal["console", "json"], log_level: str, application: str | None = None
) -> None:
    """Write every log line, our own and the libraries', to standard error in one form.

    ``json`` writes an object a line, ``console`` text for people. Libraries log from warnings on,
    the package ``application`` as we do. Tracebacks, and what libraries quote, are left out: an
    exception's text may have personal data. Uncaught errors and warnings are logged likewise.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_delivery,
        add_span,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_traceback,
    ]
    renderers: list[Processor] = (
        [structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [_printable, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.addFilter(
        lambda record: (
            record.levelno >= logging.WARNING
            or _is_ours(record)
            or record.name.partition(".")[0] == application
        )
    )
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=log_level, force=True)
    sys.excepthook = _log_crash
    threading.excepthook = _log_thread_crash
    sys.unraisablehook = _log_unraisable
    warnings.showwarning = _log_warning


def add_span(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Add the ids of the current span, if one is sampled, to a log line; a structlog processor."""
    # Where nothing is traced, nothing of OpenTelemetry is loaded.
    if (trace := sys.modules.get("opentelemetry.trace")) is not None:
        context = trace.get_current_span().get_span_context()
        if context.trace_flags.sampled:
            event_dict["trace_id"] = f"{context.trace_id:032x}"
            event_dict["span_id"] = f"{context.span_id:016x}"
    return event_dict


def _without_traceback(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    event_dict.pop("stack_info", None)
    error = event_dict.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event_dict["error"] = type(error).__name__
    return event_dict


def _printable(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Escape what could control a terminal, or look like another line."""
    return {_escaped(name): _escaped(value) for name, value in event_dict.items()}


def _escaped(value: Any) -> Any:
    if isinstance(value, bool | int | float | None):
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        # logging itself would print the line's arguments, and a traceback.
        kind = type(sys.exc_info()[1]).__name__
        with suppress(OSError, ValueError):
            self.stream.write(f"A line of {record.name} could not be logged ({kind}).\n")


class _Formatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record if _is_ours(record) else _without_quotes(record))


def _is_ours(record: logging.LogRecord) -> bool:
    # structlog passes on what was logged as a mapping.
    in_our_package = record.name.partition(".")[0] == PACKAGE and not record.name.startswith(ACTOR)
    return in_our_package or isinstance(record.msg, dict)


def _without_quotes(record: logging.LogRecord) -> logging.LogRecord:
    harmless = logging.makeLogRecord(record.__dict__)
    harmless.msg = _harmless(record.msg)
    if isinstance(record.args, Mapping):
        harmless.args = {key: _harmless(value) for key, value in record.args.items()}
    elif record.args:
        harmless.args = tuple(_harmless(value) for value in record.args)
    if record.name == "asyncio":
        harmless.msg, harmless.args = _QUOTED.sub("", harmless.getMessage()), ()
    return harmless


def _harmless(value: object) -> int | float | str:
    """Give the value, or its type's name: errors and messages show what they hold."""
    return value if isinstance(value, int | float | str) else type(value).__name__


def _log_crash(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        causes = [name_of(type(cause)) for cause in with_causes(error)[1:]]
        log.critical("crashed", **_error(kind, traceback), causes=causes)


def _log_thread_crash(crash: threading.ExceptHookArgs) -> None:
    thread = None if crash.thread is None else crash.thread.name
    log.critical("thread_crashed", thread=thread, **_error(crash.exc_type, crash.exc_traceback))


def _log_unraisable(ignored: "sys.UnraisableHookArgs") -> None:
    log.error("error_ignored", **_error(ignored.exc_type, ignored.exc_traceback))


def _log_warning(  # noqa: PLR0917  # as `warnings` calls it
    message: Warning | str,  # noqa: ARG001  # it may quote what it warns of
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    place = place_of([FrameSummary(filename, lineno, "", lookup_line=False)])
    log.warning("python_warning", category=name_of(category), places=[place])


def _error(kind: type[BaseException], traceback: TracebackType | None) -> dict[str, object]:
    frames = extract_tb(traceback)[-MOST_PLACES:]
    return {"error": name_of(kind), "places": [place_of([frame]) for frame in frames]}
