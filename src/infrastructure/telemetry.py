"""Logging: one line an event, for people or for machines."""

import logging
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from application.pipeline.logging import add_delivery
from infrastructure.uncaught_errors import log_uncaught_errors

ROOMS: Final = ("domain", "application", "infrastructure", "api")
# Dramatiq logs in our module's name what a message holds, and anybody may have sent that.
ACTOR: Final = "infrastructure.bus.actor."
# asyncio's and uvloop's own lines go on with the representations of callbacks and errors.
_QUOTED: Final = re.compile(r"\s*[\n<(].*", re.DOTALL)


def configure_logging(log_format: Literal["console", "json"], log_level: str) -> None:
    """Send every log line, our own and the libraries', to standard error in one form.

    ``console`` is for people, ``json`` (one object a line) for machines. Libraries log warnings and
    worse. Tracebacks, and what libraries quote, are left out: an exception's text may hold personal
    data, and the ledger keeps it. So it is with errors that nobody catches.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_delivery,
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
    handler.addFilter(_is_ours_or_a_warning)
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    logging.basicConfig(handlers=[handler], level=log_level, force=True)
    log_uncaught_errors()


def _without_traceback(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    event_dict.pop("stack_info", None)
    error = event_dict.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple) and error[0] is not None:
        event_dict["error"] = error[0].__name__
    elif isinstance(error, BaseException):
        event_dict["error"] = type(error).__name__
    return event_dict


def _printable(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Let nothing that was logged steer the terminal that shows it, or look like another line."""
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


def _is_ours_or_a_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or _is_ours(record)


def _is_ours(record: logging.LogRecord) -> bool:
    # structlog hands over what was logged as a mapping.
    in_a_room = record.name.partition(".")[0] in ROOMS and not record.name.startswith(ACTOR)
    return in_a_room or isinstance(record.msg, dict)


def _without_quotes(record: logging.LogRecord) -> logging.LogRecord:
    told = logging.makeLogRecord(record.__dict__)
    told.msg = _harmless(record.msg)
    if isinstance(record.args, Mapping):
        told.args = {key: _harmless(value) for key, value in record.args.items()}
    elif record.args:
        told.args = tuple(_harmless(value) for value in record.args)
    if record.name == "asyncio":
        told.msg, told.args = _QUOTED.sub("", told.getMessage()), ()
    return told


def _harmless(value: object) -> int | float | str:
    """The value, or its type's name: errors and messages show what they hold."""
    return value if isinstance(value, int | float | str) else type(value).__name__
