"""Addresses as JSON, as ``to_kratos`` writes and ``from_kratos`` reads them, but much faster."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import msgspec

from domain.addresses import RecoveryAddress, VerifiableAddress
from domain.json_values import Json
from domain.times import from_rfc3339, to_rfc3339
from infrastructure.json_columns import dumps, loads

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
