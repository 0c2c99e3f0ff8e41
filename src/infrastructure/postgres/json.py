"""JSON to and from PostgreSQL, and text that it can store."""

import json
import sys
from decimal import Decimal
from typing import Final, cast

import msgspec

from kratos_sync.domain.json_values import Json

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_ZEROS: Final = "0" * 80
_LONG: Final = 10**99
_LARGEST: Final = int(sys.float_info.max)
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
    """Decode; integers keep every digit.

    Those that PostgreSQL has written out of a double, such as 1.5e307, are doubles again.
    """
    try:
        value = cast("Json", _decode(encoded))
    # Lone surrogates too, and numbers beyond the largest double.
    except (msgspec.DecodeError, UnicodeEncodeError):
        value = cast("Json", json.loads(encoded))
    text = encoded if isinstance(encoded, str) else encoded.decode()
    return _with_doubles(value) if _ZEROS in text else value


def _with_doubles(value: Json) -> Json:
    """The value with integers of a hundred digits as doubles where those say the same, in short.

    A few bytes of a webhook are 300 in the database: as integers they would be written out again.
    """
    if isinstance(value, dict):
        return {key: _with_doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(_with_doubles, value))
    if isinstance(value, int) and _LONG < abs(value) <= _LARGEST:
        double = float(value)
        return double if Decimal(repr(double)) == value else value
    return value


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
