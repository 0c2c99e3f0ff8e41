"""JSON to and from PostgreSQL, and text that it can store."""

import json
import re
from decimal import Decimal
from math import isfinite
from typing import Final

import msgspec

from kratos_sync.application import json_body
from kratos_sync.domain.json_values import Json

_encode = msgspec.json.Encoder().encode
_MARK: Final = "\x01"
_PACKED: Final = "0" * 16
_ZEROS: Final = "0" * 80
_SHORT: Final = 22
"""As long are numbers that are never shortened, with their sign."""
_STRING_OR_NUMBER: Final = re.compile(
    rf'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?[0-9][0-9.{_MARK}]*+(?:[eE][-+]?[0-9]++)?+'
)
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
    return json_body.loads(shortened(encoded if isinstance(encoded, str) else encoded.decode()))


def packed(jsonb: str) -> str:
    """SQL for the text of a `jsonb` with a control character for every sixteen zeros.

    A few bytes of a webhook, such as 1e308, are 309 in PostgreSQL's text.
    """
    return f"replace({jsonb}::text, '{_PACKED}', chr({ord(_MARK)}))"


def shortened(text: str) -> str:
    """The JSON of a text that may be `packed`, with doubles in their shortest spelling."""
    if _MARK in text or _ZEROS in text:
        return _STRING_OR_NUMBER.sub(_shorten, text)
    return text


def _shorten(token: re.Match[str]) -> str:
    text = token[0]
    if len(text) <= _SHORT and _MARK not in text:
        return text
    text = text.replace(_MARK, _PACKED)
    if text[0] == '"':
        return text
    double = float(text)
    # A number with a fraction is read as a double in any case.
    is_double = isfinite(double) and ("." in text or Decimal(repr(double)) == Decimal(text))
    return repr(double) if is_double else text


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
