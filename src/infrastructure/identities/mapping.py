"""The table ``kratos_identities``: how an identity becomes a row, and a row an identity.

Columns are the fields of ``HeldIdentity``. What Kratos never told is SQL NULL; where JSON can be
null too, that is JSON null.
"""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from domain.held_identity import COLUMNS
from domain.json_values import ABSENT, Absent, Json
from domain.kratos_identity import KratosIdentity
from infrastructure.binary_arrays import (
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
from infrastructure.identities.address_columns import (
    decode_recovery,
    decode_verifiable,
    encode_recovery,
    encode_verifiable,
)
from infrastructure.json_columns import dumps, loads

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
    INSERT INTO kratos_sync.kratos_identities AS stored ({", ".join(COLUMNS)})
    SELECT * FROM unnest({", ".join(f"${n}::{_types[c].name}[]" for n, c in enumerate(COLUMNS, 1))})
    ON CONFLICT (id) DO UPDATE SET {_ASSIGNED}
    WHERE stored.version = (${len(COLUMNS) + 1}::integer[])
                           [array_position($1::uuid[], excluded.id)]
""".encode()  # noqa: S608  # the columns are ours


def to_arrays(
    identities: Sequence[KratosIdentity], stored_versions: Sequence[int]
) -> list[BinaryParameter]:
    """Give the parameters of STORE; the version stored is 0 for a new identity."""
    fields = zip(*map(_to_fields, identities), strict=True)
    arrays = [array(_types[c].oid, column) for c, column in zip(COLUMNS, fields, strict=True)]
    return [*arrays, array(INT4_OID, list(map(int4_field, stored_versions)))]


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
_field_encoders = tuple(_types[column].encode for column in COLUMNS)
# How a value becomes JSON, how JSON becomes a value, and the value that is SQL NULL.
_codecs: Mapping[str, tuple[Callable[[Any], str], Callable[[str], object], Absent | None]] = {
    **dict.fromkeys(NULL_IN_JSON_TOO, (dumps, loads, ABSENT)),
    **dict.fromkeys(BOOKKEEPING, (_dumps_mapping, loads, None)),
    "verifiable_addresses": (encode_verifiable, decode_verifiable, ABSENT),
    "recovery_addresses": (encode_recovery, decode_recovery, ABSENT),
}
