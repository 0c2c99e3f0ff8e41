"""Whether a listing is of the Kratos that we know, by where it has its schemas."""

from collections.abc import Collection
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

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
