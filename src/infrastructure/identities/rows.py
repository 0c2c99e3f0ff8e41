"""The table ``kratos_identities``: how an identity becomes a row, and a row an identity.

Columns are the fields of ``KratosIdentity``. What Kratos never told is SQL NULL; where JSON can be
null too, that is JSON null.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, cast
from uuid import UUID

import msgspec

from kratos_sync.application.footprint import footprint_of_stored
from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress
from kratos_sync.domain.fields import from_rfc3339, to_rfc3339
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
from kratos_sync.infrastructure.postgres.json import dumps, loads

_encode = msgspec.json.Encoder().encode


class _Recovery(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    value: str
    via: str
    id: UUID | None = None
    created_at: str | None = None
    updated_at: str | None = None


class _Verifiable(_Recovery, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    verified: bool | None = None
    status: str | None = None
    verified_at: str | None = None


_decode_verifiable = msgspec.json.Decoder(list[_Verifiable]).decode
_decode_recovery = msgspec.json.Decoder(list[_Recovery]).decode


def encode_verifiable(addresses: Sequence[VerifiableAddress]) -> str:
    """Give the JSON of verifiable addresses."""
    shapes = []
    for each in addresses:
        if each.unknown:
            return dumps([address.to_kratos() for address in addresses])
        shapes.append(
            _Verifiable(
                each.value,
                each.via,
                each.id,
                _text(each.created_at),
                _text(each.updated_at),
                each.verified,
                each.status,
                _text(each.verified_at),
            )
        )
    return _encode(shapes).decode()


def encode_recovery(addresses: Sequence[RecoveryAddress]) -> str:
    """Give the JSON of recovery addresses."""
    shapes = []
    for each in addresses:
        if each.unknown:
            return dumps([address.to_kratos() for address in addresses])
        created_at, updated_at = _text(each.created_at), _text(each.updated_at)
        shapes.append(_Recovery(each.value, each.via, each.id, created_at, updated_at))
    return _encode(shapes).decode()


def decode_verifiable(encoded: str) -> tuple[VerifiableAddress, ...]:
    """Read what ``encode_verifiable`` gave. Raises InvalidField."""
    try:
        return tuple(
            [
                VerifiableAddress(
                    each.id,
                    each.value,
                    each.verified or False,
                    each.via,
                    each.status,
                    _time(each.verified_at),
                    _time(each.created_at),
                    _time(each.updated_at),
                )
                for each in _decode_verifiable(encoded)
            ]
        )
    except ValueError:  # msgspec's own errors too: a field that we do not know, most likely
        return tuple(map(VerifiableAddress.from_kratos, _objects(encoded)))


def decode_recovery(encoded: str) -> tuple[RecoveryAddress, ...]:
    """Read what ``encode_recovery`` gave. Raises InvalidField."""
    try:
        return tuple(
            [
                RecoveryAddress(
                    each.id, each.value, each.via, _time(each.created_at), _time(each.updated_at)
                )
                for each in _decode_recovery(encoded)
            ]
        )
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


NULL_IN_JSON_TOO = frozenset({"traits", "metadata_public", "metadata_admin"})
ADDRESSES = frozenset({"verifiable_addresses", "recovery_addresses"})
BOOKKEEPING = frozenset({"unknown", "part_recency", "exact_numbers"})
JSON_COLUMNS = NULL_IN_JSON_TOO | ADDRESSES | BOOKKEEPING


class _Type(NamedTuple):
    name: str
    oid: int
    encode: Callable[[Any], bytes]


_types: Mapping[str, _Type] = {
    **dict.fromkeys(("id", "organization_id"), _Type("uuid", UUID_OID, uuid_field)),
    "external_id": _Type("text", TEXT_OID, text_field),
    **dict.fromkeys(
        ("schema_id", "schema_url", "state", "region"), _Type("text", TEXT_OID, word_field)
    ),
    **dict.fromkeys(
        (column for column in COLUMNS if column.endswith("_at")),
        _Type("timestamptz", TIMESTAMPTZ_OID, time_field),
    ),
    **dict.fromkeys(JSON_COLUMNS, _Type("jsonb", JSONB_OID, jsonb_field)),
    "version": _Type("integer", INT4_OID, int4_field),
}

# As text: the driver's own decoding cannot tell a JSON null from SQL's.
_SELECTED = ", ".join(f"{c}::text" if c in JSON_COLUMNS else c for c in COLUMNS)
_ASSIGNED = ", ".join(f"{c} = excluded.{c}" for c in COLUMNS if c != "id")

LOAD = f"""
    SELECT {_SELECTED} FROM kratos_sync.kratos_identities
    WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE
""".encode()  # noqa: S608  # the columns are ours

READ = LOAD.removesuffix(b"FOR UPDATE\n")

# A row that another transaction added or changed since it was loaded stays as it is.
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
    # Without the lengths that stand before them.
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


def _dumps_mapping(value: Mapping[str, Json]) -> str:
    return dumps(dict(value))


_columns_of = attrgetter(*COLUMNS)
_json_of = itemgetter(*(COLUMNS.index(column) for column in sorted(JSON_COLUMNS)))
_field_encoders = tuple(_types[column].encode for column in COLUMNS)
# How a value becomes JSON, how JSON becomes a value, and the value that is SQL NULL.
_codecs: Mapping[str, tuple[Callable[[Any], str], Callable[[str], object], Absent | None]] = {
    **dict.fromkeys(NULL_IN_JSON_TOO, (dumps, loads, ABSENT)),
    **dict.fromkeys(BOOKKEEPING, (_dumps_mapping, loads, None)),
    "verifiable_addresses": (encode_verifiable, decode_verifiable, ABSENT),
    "recovery_addresses": (encode_recovery, decode_recovery, ABSENT),
}
