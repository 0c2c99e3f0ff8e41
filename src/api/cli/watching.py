"""Commands that look again and again, until Ctrl-C."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Final, TypeVar

BUSY_FACTOR: Final = 4
"""The pause after a look is at least so many times as long as the look took."""

Found = TypeVar("Found")


@contextmanager
def until_ctrl_c() -> Iterator[None]:
    """End what is inside, without an error, on SIGINT, SIGTERM or SIGHUP."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def look_again(
    look: Callable[[], Found],
    show: Callable[[Found], None],
    trouble: Callable[[str], None],
    seconds: float,
) -> None:
    """Look and show for ever, with so many seconds after each look, or more if looks are slow.

    Once a look has succeeded, an unavailable database is shown as `trouble` and waited for. Raises
    what the first look raises, and what a database that refuses us does.
    """
    from kratos_sync.infrastructure.postgres.connection_failures import (
        DATABASE_ERRORS,
        is_refusal,
        why_unavailable,
    )

    has_succeeded = False
    while True:
        began = monotonic()
        try:
            found = look()
        except DATABASE_ERRORS as error:
            if not has_succeeded or is_refusal(error):
                raise
            trouble(why_unavailable(error))
        else:
            has_succeeded = True
            show(found)
        sleep(max(seconds, BUSY_FACTOR * (monotonic() - began)))
