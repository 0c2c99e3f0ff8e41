"""How far our copy was from Kratos at each reconciliation, and whether that is a rise."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from statistics import median
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from kratos_sync.application.missed_webhooks import missed
from kratos_sync.application.ports.reconciliation import PastReconciliation

COMPARED_WITH: Final = 10
"""A rise is one against so many before,"""
FEWEST_BEFORE: Final = 3
"""and with fewer than these nobody can tell."""
FEW: Final = 10
"""So many are no rise, whatever was before."""
TIMES: Final = 3
SHORTEST: Final = timedelta(minutes=1)


class Rise(NamedTuple):
    """Webhooks that were missed in ``within``, where about ``usual`` were to be expected."""

    missed: int
    usual: float
    within: timedelta


@dataclass(frozen=True, slots=True)
class Drift:
    """The newest reconciliations, newest first, and whether one is at work."""

    past: Sequence[PastReconciliation] = ()
    is_running: bool = False

    @property
    def newest(self) -> PastReconciliation | None:
        """The last one that began."""
        return self.past[0] if self.past else None

    @property
    def last(self) -> PastReconciliation | None:
        """The last one that is over."""
        return next((each for each in self.past if each.ended_at), None)

    @property
    def compared(self) -> Sequence[PastReconciliation]:
        """Those that are over, and looked at anybody."""
        return [each for each in self.past if each.ended_at and each.findings.identities]

    @property
    def rise(self) -> Rise | None:
        """Whether the newest of them found more than was to be expected from those before.

        It is a rise if it misses more than 10 webhooks, and more than 3 times as many as usual:
        the median rate of the ten before, for as long as has passed since the last one. What no
        webhook tells does not count: neither a busy administrator nor the first reconciliation of
        old accounts is a rise. A median does not mind a day that was an exception, and a rate
        does not mind that one came late.
        """
        compared = self.compared
        spans = [
            (missed(each.findings.unheard), max(each.started_at - before.started_at, SHORTEST))
            for each, before in pairwise(compared)
        ]
        if len(spans) <= FEWEST_BEFORE:
            return None
        (number, within), *before = spans[: COMPARED_WITH + 1]
        usual = median(count / span.total_seconds() for count, span in before)
        expected = usual * within.total_seconds()
        if number <= FEW or number <= TIMES * expected:
            return None
        return Rise(number, expected, within)


_PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str | None, int | None]


class Elsewhere(NamedTuple):
    """A page whose schemas are elsewhere: where, and whom it lists."""

    origins: tuple[str, ...]
    ids: tuple[UUID, ...]


class _Listed(msgspec.Struct, gc=False):
    id: Any = None
    schema_url: Any = None


_read: Final = msgspec.json.Decoder(list[_Listed]).decode


def elsewhere(identities: bytes, ours: Collection[str], urls: Collection[str]) -> Elsewhere | None:
    """The page, if its schemas are all at other origins than ours and those URLs.

    An origin is scheme, host and port. If ours are unknown, or those of the page, nothing can be
    told.
    """
    try:
        listed = _read(identities)
    except msgspec.ValidationError:  # no list of objects: whoever compares it will say so
        return None
    known = {origin for url in ours if (origin := _origin(url))}
    theirs = {origin for each in listed if (origin := _origin(each.schema_url))}
    if not known or not theirs or theirs & {*known, *map(_origin, urls)}:
        return None
    ids = [_id(each.id) for each in listed]
    return Elsewhere(tuple(sorted(map(_written, theirs))), tuple(each for each in ids if each))


def _id(written: object) -> UUID | None:
    try:
        return UUID(written) if isinstance(written, str) else None
    except ValueError:
        return None


def _written(origin: Origin) -> str:
    scheme, host, port = origin
    netloc = f"[{host}]" if host and ":" in host else host
    return f"{scheme}://{netloc}{'' if port == _PORTS.get(scheme) else f':{port}'}"


def _origin(url: object) -> Origin | None:
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
