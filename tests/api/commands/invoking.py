"""Calling a command in this process, and leaving its logging as it was."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from click.testing import CliRunner, Result

from api.commands import main


@contextmanager
def _logging_kept() -> Iterator[None]:
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**config)


def kratos_sync(*arguments: str, **settings: str | None) -> Result:
    """Run `kratos-sync` with these arguments and settings; None is one that is not set."""
    with _logging_kept():
        return CliRunner(catch_exceptions=False).invoke(main, arguments, env=settings)
