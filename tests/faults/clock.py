"""A clock that jumps: what this process' Python code takes for the time of day.

`time.time()`, and `datetime.now()` as the service's modules call it, are ahead or behind by so many
seconds as a file says. What C and Rust libraries ask the kernel themselves stays as it is, and so
does PostgreSQL's clock, which alone may decide when something is due.
"""

import datetime as dt
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

CLOCK: Final = "FAULTS_CLOCK"
"""The variable that names the file."""
LOOK_SECONDS: Final = 0.1

_ahead = 0.0


class _LikeDatetime(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, dt.datetime)


class JumpingDatetime(dt.datetime, metaclass=_LikeDatetime):
    """A datetime whose now is what the file says."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        """The time of day, ahead or behind."""
        return dt.datetime.now(tz) + dt.timedelta(seconds=_ahead)


def follow(environment: Mapping[str, str]) -> None:
    """Follow the file that the variable names, from now on."""
    path = Path(environment[CLOCK])
    real = time.time
    time.time = lambda: real() + _ahead
    threading.Thread(target=_follow, args=(path,), name="clock", daemon=True).start()


def _follow(path: Path) -> None:
    global _ahead  # noqa: PLW0603
    while True:
        _ahead = float(path.read_text()) if path.exists() else 0.0
        replace_in_modules(dict(sys.modules))
        time.sleep(LOOK_SECONDS)


def replace_in_modules(modules: Mapping[str, ModuleType]) -> None:
    """Let the service's modules, as many as have been imported by now, know this datetime."""
    for name, module in modules.items():
        is_ours = name.startswith("kratos_sync.") and not _is_being_imported(module)
        if is_ours and vars(module).get("datetime") is dt.datetime:
            vars(module)["datetime"] = JumpingDatetime


def _is_being_imported(module: ModuleType) -> bool:
    """Whether its code still runs, which may want the type that its annotations name."""
    return bool(getattr(module.__spec__, "_initializing", False))
