"""Logging: one line an event, for people or for machines."""

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from application.pipeline.logging import add_delivery

# What other libraries say at INFO of their own inner life is noise, and may quote what they handle.
QUIET_LIBRARIES = ("dramatiq", "sqlalchemy", "alembic", "asyncio", "httptools", "uvicorn")


def configure_logging(log_format: Literal["console", "json"], log_level: str) -> None:
    """Send every log line, our own and the libraries', to standard error in one form.

    ``console`` is for people, ``json`` (one object a line) for machines. Tracebacks are left out:
    an exception's text may quote personal data, and the ledger keeps it.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_delivery,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_traceback,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(log_level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=log_level, force=True)
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLevelName(log_level)))


def _without_traceback(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    error = event_dict.pop("exc_info", None)
    if isinstance(error, tuple) and error[0] is not None:
        event_dict["error"] = error[0].__name__
    elif isinstance(error, BaseException):
        event_dict["error"] = type(error).__name__
    return event_dict
