"""Who is in the field, and the ways to run each that are tried before it is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Setting:
    """One way to run a rival's workers."""

    name: str
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    commands: int = 1
    """How many of the rival's command run side by side."""


@dataclass(frozen=True)
class Rival:
    """A program of this package, and the command that runs its workers."""

    name: str
    module: str
    command: Sequence[str]
    settings: Sequence[Setting]
    """Best first, as far as we know: the first is taken where none are tried."""


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def _dramatiq(processes: int, threads: int) -> Setting:
    return Setting(
        f"{_processes(processes)} of {threads} threads, prefetch 100",
        ("--processes", str(processes), "--threads", str(threads)),
        {"dramatiq_queue_prefetch": "100"},
    )


def _celery(processes: int) -> Setting:
    return Setting(
        f"prefork, {_processes(processes)}, prefetch 64 each",
        ("--concurrency", str(processes)),
        {"PREFETCH": "64"},
    )


def _faststream(processes: int, at_once: int) -> Setting:
    return Setting(
        f"{_processes(processes)} of {at_once} at once",
        ("--workers", str(processes)) if processes > 1 else (),
        {"MAX_WORKERS": str(at_once)},
    )


def _procrastinate(processes: int, threads: int) -> Setting:
    name = f"{_processes(processes)} of {threads} at once"
    return Setting(name, ("--concurrency", str(threads)), commands=processes)


FIELD = (
    Rival(
        "Dramatiq + SQLAlchemy",
        "benchmarks.rivals.dramatiq_redis",
        ("dramatiq", "benchmarks.rivals.dramatiq_redis"),
        (_dramatiq(2, 4), _dramatiq(2, 8), _dramatiq(1, 8)),
    ),
    Rival(
        "Celery + SQLAlchemy",
        "benchmarks.rivals.celery_redis",
        (
            *("celery", "--app", "benchmarks.rivals.celery_redis", "worker"),
            *("--loglevel", "ERROR", "--without-gossip", "--without-mingle"),
        ),
        (_celery(8), _celery(4), _celery(16)),
    ),
    Rival(
        "FastStream + SQLAlchemy",
        "benchmarks.rivals.faststream_redis",
        ("faststream", "run", "benchmarks.rivals.faststream_redis:app"),
        (_faststream(2, 4), _faststream(1, 8), _faststream(2, 1)),
    ),
    Rival(
        "Procrastinate + SQLAlchemy",
        "benchmarks.rivals.procrastinate_postgres",
        ("procrastinate", "--app", "benchmarks.rivals.procrastinate_postgres.app", "worker"),
        (_procrastinate(2, 4), _procrastinate(1, 8), _procrastinate(2, 1)),
    ),
)
