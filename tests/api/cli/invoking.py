"""Runs a command in this process, and leaves logging and signal handlers as they were."""

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import structlog
from click.testing import CliRunner, Result

from kratos_sync.api.cli import main
from tests.environment import with_direct_url

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _configure_without_cache(configure: Callable[..., None], **options: Any) -> None:
    configure(**{**options, "cache_logger_on_first_use": False})


@contextmanager
def process_state_kept() -> Iterator[None]:
    root, config = logging.getLogger(), structlog.get_config()
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    handlers, level = root.handlers[:], root.level
    signals = {number: signal.getsignal(number) for number in SIGNALS}

    # A cached logger would keep this command's processors for the tests that follow.
    configure_without_cache = partial(_configure_without_cache, structlog.configure)
    try:
        with patch.object(structlog, "configure", configure_without_cache):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**config)
        sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks
        if threading.current_thread() is threading.main_thread():
            for number, handler in signals.items():
                signal.signal(number, handler)


def kratos_sync(*arguments: str, typed: str | None = None, **settings: str | None) -> Result:
    """Run `kratos-sync` with these arguments and settings; None is one that is not set.

    ``typed`` is what is answered to its questions.
    """
    given = with_direct_url(arguments[0], settings)
    with process_state_kept():
        return CliRunner(catch_exceptions=False).invoke(main, arguments, typed, given)
