"""Identities as rows of the table ``kratos_identities``.

The columns are the fields of ``KratosIdentity``. What Kratos never sent is SQL NULL; what it sent
as null is JSON null where the column is JSON.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, Self, cast
from uuid import UUID

import msgspec

from kratos_sync.application.footprint import SMALL_BYTES, footprint_of_stored
from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress
from kratos_sync.domain.fields import from_rfc3339, to_rfc3339
from kratos_sync.domain.identity import ADDRESSES
from kratos_sync.domain.json_values import ABSENT, Absent, Json
from kratos_sync.domain.kratos_identity import COLUMNS, KratosIdentity
from kratos_sync.infrastructure.postgres.binary_arrays import (
    INT4_OID,
    JSONB_OID,
    NULL,
    TEXT_OID,
    TIMESTAMPTZ_OID,
    UUID_OID,
    BinaryParameter,
    array,
    int4_field,
    jsonb_field,
    text_field,
    time_field,
    uuid_field,
    word_field,
)
from kratos_sync.infrastructure.postgres.json import dumps, loads, packed, shortened

_encode = msgspec.json.Encoder().encode


class _Recovery(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    value: str
    via: str
    id: UUID | None = None
    created_at: str | None = None
    updated_at: str | None = None

    @classmethod
    def of(cls, address: RecoveryAddress) -> Self:
        times = _text(address.created_at), _text(address.updated_at)
        return cls(address.value, address.via, address.id, *times)

    def address(self) -> RecoveryAddress:
        times = _time(self.created_at), _time(self.updated_at)
        return RecoveryAddress(self.id, self.value, self.via, *times)


class _Verifiable(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    value: str
    via: str
    verified: bool | None = None
    id: UUID | None = None
    status: str | None = None
    verified_at: str | None = None
    created_at: str | None = None
    updated_at: str | None = None

    @classmethod
    def of(cls, address: VerifiableAddress) -> Self:
        times = _text(address.verified_at), _text(address.created_at), _text(address.updated_at)
        verified, status = address.verified, address.status
        return cls(address.value, address.via, verified, address.id, status, *times)

    def address(self) -> VerifiableAddress:
        times = _time(self.verified_at), _time(self.created_at), _time(self.updated_at)
        verified = self.verified or False
        return VerifiableAddress(self.id, self.value, verified, self.via, self.status, *times)


_decode_verifiable = msgspec.json.Decoder(list[_Verifiable]).decode
_decode_recovery = msgspec.json.Decoder(list[_Recovery]).decode


def encode_verifiable(addresses: Sequence[VerifiableAddress]) -> str:
    """Give the JSON of verifiable addresses: their ``to_kratos``, only faster."""
    if any(each.unknown for each in addresses):
        return dumps([each.to_kratos() for each in addresses])
    return _encode([_Verifiable.of(each) for each in addresses]).decode()


def encode_recovery(addresses: Sequence[RecoveryAddress]) -> str:
    """Give the JSON of recovery addresses likewise."""
    if any(each.unknown for each in addresses):
        return dumps([each.to_kratos() for each in addresses])
    return _encode([_Recovery.of(each) for each in addresses]).decode()


def decode_verifiable(encoded: str) -> tuple[VerifiableAddress, ...]:
    """Read what ``encode_verifiable`` gave. Raises InvalidField."""
    try:
        return tuple([each.address() for each in _decode_verifiable(shortened(encoded))])
    except ValueError:  # most likely a field that we do not know
        return tuple(map(VerifiableAddress.from_kratos, _objects(encoded)))


def decode_recovery(encoded: str) -> tuple[RecoveryAddress, ...]:
    """Read what ``encode_recovery`` gave. Raises InvalidField."""
    try:
        return tuple([each.address() for each in _decode_recovery(shortened(encoded))])
    except ValueError:
        return tuple(map(RecoveryAddress.from_kratos, _objects(encoded)))


def _objects(encoded: str) -> list[dict[str, Json]]:
    return cast("list[dict[str, Json]]", loads(encoded))


def _time(text: str | None) -> datetime | None:
    return None if text is None else from_rfc3339(text)


def _text(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    if moment.tzinfo is not UTC:
        return to_rfc3339(moment)
    text: str = msgspec.to_builtins(moment)
    return f"{text[:-1].rstrip('0')}Z" if text[-2] == "0" and "." in text else text


NULLABLE_JSON: Final = frozenset({"traits", "metadata_public", "metadata_admin"})
BOOKKEEPING: Final = frozenset({"unknown", "part_recency", "exact_numbers"})
JSON_COLUMNS: Final = NULLABLE_JSON | BOOKKEEPING | frozenset(ADDRESSES)


class _Type(NamedTuple):
    name: str
    oid: int
    encode: Callable[[Any], bytes]


def _type_of(column: str) -> _Type:
    """A scalar that Kratos adds is text, or a time if it ends in ``_at``."""
    if column in JSON_COLUMNS:
        return _Type("jsonb", JSONB_OID, jsonb_field)
    if column.endswith("_at"):
        return _Type("timestamptz", TIMESTAMPTZ_OID, time_field)
    if column in {"id", "organization_id"}:
        return _Type("uuid", UUID_OID, uuid_field)
    if column == "version":
        return _Type("integer", INT4_OID, int4_field)
    # The others have few values, whose fields are kept.
    return _Type("text", TEXT_OID, text_field if column == "external_id" else word_field)


_types: Final = {column: _type_of(column) for column in COLUMNS}

# JSON as text: the driver's decoding does not distinguish JSON null from SQL NULL.
_SELECTED = ", ".join(
    f"CASE WHEN footprint <= {SMALL_BYTES} THEN {c}::text ELSE {packed(c)} END"
    if c in JSON_COLUMNS
    else c
    for c in COLUMNS
)
_ASSIGNED = ", ".join(f"{c} = excluded.{c}" for c in COLUMNS if c != "id")

LOAD = f"""
    SELECT {_SELECTED} FROM kratos_sync.kratos_identities
    WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE
""".encode()  # noqa: S608  # the columns are ours

READ = LOAD.removesuffix(b"FOR UPDATE\n")

# A row that another transaction has added or changed since it was loaded is left alone.
STORE = f"""
    INSERT INTO kratos_sync.kratos_identities AS stored ({", ".join(COLUMNS)}, footprint)
    SELECT * FROM unnest({", ".join(f"${n}::{_types[c].name}[]" for n, c in enumerate(COLUMNS, 1))},
                         ${len(COLUMNS) + 1}::integer[])
    ON CONFLICT (id) DO UPDATE SET {_ASSIGNED}, footprint = excluded.footprint
    WHERE stored.version = (${len(COLUMNS) + 2}::integer[])
                           [array_position($1::uuid[], excluded.id)]
""".encode()  # noqa: S608  # the columns are ours


def to_arrays(
    identities: Sequence[KratosIdentity], stored_versions: Sequence[int]
) -> list[BinaryParameter]:
    """Give the parameters of STORE; the version stored is 0 for a new identity."""
    rows = list(map(_to_fields, identities))
    fields = zip(*rows, strict=True)
    arrays = [array(_types[c].oid, column) for c, column in zip(COLUMNS, fields, strict=True)]
    footprints, versions = map(_footprint, rows), map(int4_field, stored_versions)
    return [*arrays, array(INT4_OID, list(footprints)), array(INT4_OID, list(versions))]


def _footprint(fields: Sequence[bytes]) -> bytes:
    # Each field begins with four bytes of length.
    return int4_field(footprint_of_stored(b"".join([each[4:] for each in _json_of(fields)])))


def _to_fields(identity: KratosIdentity) -> list[bytes]:
    row = dict(zip(COLUMNS, _columns_of(identity), strict=True))
    for column, (encode, _, sql_null) in _codecs.items():
        value = row[column]
        row[column] = None if value is sql_null else encode(value)
    return [
        NULL if value is None else encode(value)
        for encode, value in zip(_field_encoders, row.values(), strict=True)
    ]


def from_row(row: Sequence[Any]) -> KratosIdentity:
    """Give the identity of a row of LOAD."""
    columns = dict(zip(COLUMNS, row, strict=True))
    for column, (_, decode, sql_null) in _codecs.items():
        encoded = columns[column]
        columns[column] = sql_null if encoded is None else decode(encoded)
    return KratosIdentity(**columns)


_columns_of = attrgetter(*COLUMNS)
_json_of = itemgetter(*(COLUMNS.index(column) for column in sorted(JSON_COLUMNS)))
_field_encoders = tuple(_types[column].encode for column in COLUMNS)
# How a value becomes JSON, how JSON becomes a value, and the value that is SQL NULL.
_codecs: Mapping[str, tuple[Callable[[Any], str], Callable[[str], object], Absent | None]] = {
    **dict.fromkeys(NULLABLE_JSON, (dumps, loads, ABSENT)),
    **dict.fromkeys(BOOKKEEPING, (dumps, loads, None)),
    "verifiable_addresses": (encode_verifiable, decode_verifiable, ABSENT),
    "recovery_addresses": (encode_recovery, decode_recovery, ABSENT),
}
