"""Whether a listing is of the Kratos that we know, by where it has its schemas."""

from collections.abc import Collection
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

_PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str | None, int | None]


class _Listed(msgspec.Struct, gc=False):
    schema_url: Any = None


_read: Final = msgspec.json.Decoder(list[_Listed]).decode


def is_elsewhere(identities: bytes, ours: Collection[str], public_url: str | None) -> bool:
    """Whether a page's schemas are all at other origins than ours and the public URL.

    An origin is scheme, host and port. If ours are unknown, or those of the page, nothing can be
    told.
    """
    try:
        listed = _read(identities)
    except msgspec.ValidationError:  # no list of objects: whoever compares it will say so
        return False
    known = {_origin(url) for url in ours} - {None}
    theirs = {_origin(each.schema_url) for each in listed} - {None}
    if public_url is not None and known:
        known.add(_origin(public_url))
    return bool(known) and bool(theirs) and known.isdisjoint(theirs)


def _origin(url: object) -> Origin | None:
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
