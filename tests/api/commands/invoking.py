"""Calling a command in this process, and leaving its logging as it was."""

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from click.testing import CliRunner, Result

from api.commands import main


@contextmanager
def _logging_kept() -> Iterator[None]:
    root, config = logging.getLogger(), structlog.get_config()
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**config)
        sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks


def kratos_sync(*arguments: str, typed: str | None = None, **settings: str | None) -> Result:
    """Run `kratos-sync` with these arguments and settings; None is one that is not set.

    ``typed`` is what is answered to its questions.
    """
    with _logging_kept():
        return CliRunner(catch_exceptions=False).invoke(main, arguments, typed, settings)
