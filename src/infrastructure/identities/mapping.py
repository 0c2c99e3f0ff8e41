"""The table ``kratos_identities``: how an identity becomes a row, and a row an identity.

Columns are the fields of ``HeldIdentity``. What Kratos never told is SQL NULL; where JSON can be
null too, that is JSON null.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import text

from domain.addresses import RecoveryAddress, VerifiableAddress
from domain.held_identity import COLUMNS
from domain.json_values import ABSENT, Absent, Json
from domain.kratos_identity import KratosIdentity
from infrastructure.json_columns import dumps, loads

NULL_IN_JSON_TOO = frozenset({"traits", "metadata_public", "metadata_admin"})
ADDRESSES = frozenset({"verifiable_addresses", "recovery_addresses"})
BOOKKEEPING = frozenset({"unknown", "part_recency", "exact_numbers"})
JSON_COLUMNS = NULL_IN_JSON_TOO | ADDRESSES | BOOKKEEPING

# As text: the driver's own decoding cannot tell a JSON null from SQL's.
_SELECTED = ", ".join(f"{c}::text" if c in JSON_COLUMNS else c for c in COLUMNS)
_ASSIGNED = ", ".join(f"{c} = excluded.{c}" for c in COLUMNS if c != "id")

LOAD = text(f"""
    SELECT {_SELECTED} FROM kratos_sync.kratos_identities
    WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
""")  # noqa: S608  # the columns are ours

# A row that another transaction added or changed since it was loaded stays as it is.
STORE = text(f"""
    INSERT INTO kratos_sync.kratos_identities AS stored ({", ".join(COLUMNS)})
    VALUES ({", ".join(f":{c}" for c in COLUMNS)})
    ON CONFLICT (id) DO UPDATE SET {_ASSIGNED} WHERE stored.version = :stored_version
""")  # noqa: S608  # the columns are ours


def to_row(identity: KratosIdentity, stored_version: int) -> dict[str, object]:
    """Give the parameters of STORE; the version stored is 0 for a new identity."""
    row: dict[str, object] = {column: getattr(identity, column) for column in COLUMNS}
    for column in JSON_COLUMNS:
        row[column] = _encoders[column](row[column])
    row["stored_version"] = stored_version
    return row


def from_row(row: Sequence[Any]) -> KratosIdentity:
    """Give the identity of a row of LOAD."""
    columns = dict(zip(COLUMNS, row, strict=True))
    for column in JSON_COLUMNS:
        columns[column] = _decoders[column](columns[column])
    return KratosIdentity(**columns)


def _encode(value: Json | Absent) -> str | None:
    return None if value is ABSENT else dumps(value)


def _decode(encoded: str | None) -> Json | Absent:
    return ABSENT if encoded is None else loads(encoded)


def _encode_addresses(
    addresses: tuple[VerifiableAddress | RecoveryAddress, ...] | Absent,
) -> str | None:
    if addresses is ABSENT:
        return None
    return dumps([address.to_kratos() for address in addresses])


def _address_decoder(
    kind: type[VerifiableAddress] | type[RecoveryAddress],
) -> Callable[[str | None], object]:
    def decode(encoded: str | None) -> object:
        if encoded is None:
            return ABSENT
        return tuple(
            kind.from_kratos(item) for item in cast("list[dict[str, Json]]", loads(encoded))
        )

    return decode


def _encode_bookkeeping(value: Mapping[str, Json] | None) -> str | None:
    return None if value is None else dumps(dict(value))


def _decode_bookkeeping(encoded: str | None) -> Json:
    return None if encoded is None else loads(encoded)


_encoders: Mapping[str, Callable[[Any], str | None]] = {
    **dict.fromkeys(NULL_IN_JSON_TOO, _encode),
    **dict.fromkeys(ADDRESSES, _encode_addresses),
    **dict.fromkeys(BOOKKEEPING, _encode_bookkeeping),
}
_decoders: Mapping[str, Callable[[str | None], object]] = {
    **dict.fromkeys(NULL_IN_JSON_TOO, _decode),
    **dict.fromkeys(BOOKKEEPING, _decode_bookkeeping),
    "verifiable_addresses": _address_decoder(VerifiableAddress),
    "recovery_addresses": _address_decoder(RecoveryAddress),
}
