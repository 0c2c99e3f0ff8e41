"""Many values as one parameter, in PostgreSQL's binary format of a one-dimensional array.

psycopg writes a list item by item, as text, at several times the cost. A field is a value with its
length before it, as in arrays and COPY.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import Final
from uuid import UUID

from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

INT4_OID: Final = 23
TEXT_OID: Final = 25
JSON_OID: Final = 114
TIMESTAMPTZ_OID: Final = 1184
UUID_OID: Final = 2950
JSONB_OID: Final = 3802

LONGEST_WORD: Final = 200
NULL: Final = b"\xff\xff\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_UUID_SIZE: Final = b"\x00\x00\x00\x10"
_length: Final = Struct("!i").pack
_sized_int4: Final = Struct("!ii").pack
_sized_int8: Final = Struct("!iq").pack
_array_header: Final = Struct("!iiIii").pack


class BinaryParameter(bytes):
    """A parameter of the type that the statement casts it to."""

    __slots__ = ()


def text_field(value: str) -> bytes:
    """A field of the types text and json."""
    encoded = value.encode()
    return _length(len(encoded)) + encoded


def word_field(value: str) -> bytes:
    """A text field of one of few values, which is encoded once unless it is long."""
    return _kept_field(value) if len(value) <= LONGEST_WORD else text_field(value)


_kept_field: Final = lru_cache(maxsize=256)(text_field)


def jsonb_field(value: str) -> bytes:
    """A field of the type jsonb."""
    encoded = value.encode()
    return _length(len(encoded) + 1) + b"\x01" + encoded


def uuid_field(value: UUID) -> bytes:
    """A field of the type uuid."""
    return _UUID_SIZE + value.bytes


def time_field(value: datetime) -> bytes:
    """A field of the type timestamptz."""
    return _sized_int8(8, (value - _EPOCH) // _MICROSECOND)


def int4_field(value: int) -> bytes:
    """A field of the type integer. Raises struct.error beyond its 32 bits."""
    return _sized_int4(4, value)


def array(oid: int, fields: Sequence[bytes]) -> BinaryParameter:
    """An array of fields of the type with that OID."""
    if not fields:
        return BinaryParameter(_array_header(0, 0, oid, 0, 0)[:12])
    has_nulls = 1 if NULL in fields else 0
    return BinaryParameter(_array_header(1, has_nulls, oid, len(fields), 1) + b"".join(fields))


def uuid_array(ids: Iterable[UUID]) -> BinaryParameter:
    """An array of the type uuid[]."""
    return array(UUID_OID, [_UUID_SIZE + each.bytes for each in ids])


class _BinaryDumper(Dumper):
    format = Format.BINARY
    oid = 0

    def dump(self, obj: BinaryParameter) -> bytes:
        return obj


def register_binary_arrays(adapters: AdaptersMap) -> None:
    """Let connections with these adapters take such parameters."""
    adapters.register_dumper(BinaryParameter, _BinaryDumper)
