"""JSON to and from PostgreSQL, and text that it can store."""

import json
from typing import cast

import msgspec

from kratos_sync.domain.json_values import Json

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Encoder().encode


def dumps(value: Json) -> str:
    """Encode compactly. Raises ValueError for what JSON cannot hold (NaN, infinities)."""
    if value is None:
        return "null"
    try:
        encoded = _encode(value)
        # msgspec writes NaN and infinities as null, without an error.
        if b"null" not in encoded or _is_finite(value):
            return encoded.decode()
    except (UnicodeEncodeError, OverflowError):  # lone surrogates; integers beyond 64 bits
        pass
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def loads(encoded: str | bytes) -> Json:
    """Decode; integers keep every digit."""
    try:
        return cast("Json", _decode(encoded))
    # Lone surrogates too, and numbers beyond the largest double.
    except (msgspec.DecodeError, UnicodeEncodeError):
        return cast("Json", json.loads(encoded))


def storable(text: str) -> str:
    """Escape lone surrogates and replace U+0000, which PostgreSQL's text cannot have."""
    escaped = text.encode(errors="backslashreplace").decode()
    return escaped.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _is_finite(value: Json) -> bool:
    """False for every NaN and infinity, and for a few of the largest numbers too.

    In MessagePack a double is 0xCB and eight bytes, the first of which is then 7F or FF.
    """
    packed = _pack(value)
    return b"\xcb\x7f" not in packed and b"\xcb\xff" not in packed
