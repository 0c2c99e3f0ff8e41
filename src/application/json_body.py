"""JSON: bodies, read strictly so that `jsonb` can keep them, and what is kept, read as it is."""

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from types import MappingProxyType
from typing import Final, NoReturn, cast

import msgspec

from kratos_sync.domain.json_values import Json, short
from kratos_sync.domain.large_integers import EXACT_UP_TO

MAX_DEPTH: Final = 128
"""Levels that a body may be nested: far beyond any identity, and within Python's own recursion."""

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})
_LEVELS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""As signed bytes: a bracket is a level more, or one less."""
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")

_NOT_STORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_REPLACEMENT: Final = "\ufffd"
_FIELD: Final = re.compile(r"[a-z_]{1,64}")


class NotJson(ValueError):
    """The body is not JSON in UTF-8 that could be kept; the message says why and quotes nothing."""


@dataclass(frozen=True, slots=True)
class JsonBody:
    """What a body says, and how many characters were replaced in it, by field."""

    value: Json
    replaced: Mapping[str, int]


def decode(body: bytes, *, exactly: bool = False) -> JsonBody:
    """Read a body; of keys that are there twice the last one counts, as in Go. Raises NotJson.

    `exactly` keeps every digit of a large whole number, though it is written as a float, such as
    12345678901234567890.0; a double that says all of them, such as 1.5e300, stays one.

    `jsonb` has neither U+0000 nor lone surrogates, but a person's name in Kratos may: each becomes
    U+FFFD, since an identity with one odd character is better than an identity lost.
    """
    # What msgspec refuses is read once more, to say why, or because of the one thing that it is
    # stricter in, which are lone surrogates.
    if b"\\u0000" not in body and not is_too_deep(body):
        try:
            return JsonBody((_decode_exactly if exactly else _decode)(body), _NOTHING)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    return decode_strictly(body, exactly=exactly)


def loads(text: str) -> Json:
    """Decode what the ledger or a table keeps. Raises ValueError for what is not JSON."""
    try:
        return cast("Json", _decode_kept(text))
    # What may be kept, and msgspec refuses: lone surrogates, and numbers beyond the largest double.
    except (msgspec.DecodeError, UnicodeEncodeError):
        return cast("Json", json.loads(text))


def is_too_deep(body: bytes) -> bool:
    """Whether JSON is nested deeper than MAX_DEPTH; of what is no JSON this may say anything."""
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return False
    outside_strings = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    levels = array("b", b"".join(outside_strings).translate(_LEVELS, _NO_BRACKETS))
    return max(accumulate(levels), default=0) > MAX_DEPTH


def decode_strictly(body: bytes, *, exactly: bool = False) -> JsonBody:
    """Read a body as `decode` does, with the standard library: slower, and all of the rules."""
    try:
        value: Json = json.loads(
            body.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_exact if exactly else finite,
        )
    except UnicodeDecodeError:
        raise NotJson("the body is not UTF-8") from None
    except RecursionError:
        raise NotJson("the body is nested too deeply") from None
    except NotJson:
        raise
    except ValueError:  # also an integer of more digits than Python reads, and a byte order mark
        raise NotJson("the body is not JSON") from None
    replaced: Counter[str] = Counter()
    return JsonBody(_storable(value, "", MAX_DEPTH, replaced), replaced)


def _storable(value: Json, field: str, depth: int, replaced: Counter[str]) -> Json:
    """The value with what cannot be stored replaced, and counted under the field that holds it."""
    if depth == 0 and isinstance(value, list | dict):
        raise NotJson("the body is nested too deeply")
    if isinstance(value, str):
        return _storable_text(value, field, replaced)
    if isinstance(value, list):
        return [_storable(item, field, depth - 1, replaced) for item in value]
    if isinstance(value, dict):
        return {
            _storable_text(key, field, replaced): _storable(
                item, _below(field, key, MAX_DEPTH - depth), depth - 1, replaced
            )
            for key, item in value.items()
        }
    return value


def _storable_text(text: str, field: str, replaced: Counter[str]) -> str:
    storable, count = _NOT_STORABLE.subn(_REPLACEMENT, text)
    if count:
        replaced[field] += count
    return storable


def _below(field: str, key: str, level: int) -> str:
    """The two outer levels bear Kratos' names (identity.traits); deeper ones may be personal."""
    if level > 1:
        return field
    name = key if _FIELD.fullmatch(key) else "?"
    return f"{field}.{name}" if field else name


def _refuse_constant(constant: str) -> NoReturn:
    raise NotJson(f"{constant} is not JSON")


def finite(digits: str) -> float:
    """A number's double; raises NotJson where it is beyond them.

    As msgspec's `float_hook`: by itself msgspec takes a hundred times as long for some numbers.
    """
    number = float(digits)
    if math.isinf(number):
        raise NotJson("a number is beyond the range of doubles")
    return number


def _exact(digits: str) -> float:
    number = finite(digits)
    if -EXACT_UP_TO < number < EXACT_UP_TO:
        return number
    exact = Decimal(digits)
    return short(int(exact)) if exact == exact.to_integral_value() else number


_decode: Final = msgspec.json.Decoder(float_hook=finite).decode
_decode_kept: Final = msgspec.json.Decoder(float_hook=float).decode
_decode_exactly: Final = msgspec.json.Decoder(float_hook=_exact).decode
