"""Reads the body that Kratos' hooks send, `{"identity": …}`, and says why one is rejected.

Usual bodies are checked by a typed decoder and recorded as they came; any other is read in full.
"""

import re
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog

from kratos_sync.api.http.webhooks.rejections import DetailedMessage, ErrorMessage
from kratos_sync.application.json_body import JsonBody, decode, finite, is_too_deep
from kratos_sync.domain.fields import InvalidField, from_rfc3339, from_text, time, uuid
from kratos_sync.domain.identity import SCALARS, Identity, IdentityIdIsEmpty
from kratos_sync.domain.json_values import Json

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()
_ASCII_ESCAPE: Final = re.compile(rb"\\u00[0-7]")


class IdentityIsNull(InvalidField):
    """The body has no identity: there is no such key, it is null, or the body is no object."""


def read_identity(body: bytes) -> tuple[UUID, Identity | None]:
    """The identity's id, and the identity where the body may not be recorded as it came.

    Raises NotJson, IdentityIsNull or InvalidField.
    """
    subject = usual_id(body)
    if subject is not None:
        return subject, None
    decoded, document = _read_in_full(body)
    identity = Identity.from_kratos(document)
    return identity.id, None if _says_nothing_else(body, decoded) else identity


def read_document(body: bytes) -> dict[str, Json]:
    """Read the identity in a body as plain JSON; raises NotJson, IdentityIsNull or InvalidField."""
    return _read_in_full(body)[1]


def rejection(error: InvalidField, hook: str | None) -> list[ErrorMessage]:
    """Log why a body is no identity and return the messages of the 422.

    Message 1 means no identity and 2 no id, both without a place; 3 names any other field.
    """
    place = None
    match error:
        case IdentityIsNull():
            message = DetailedMessage(1, "identity is null")
        case IdentityIdIsEmpty():
            message = DetailedMessage(2, "identity.id is empty")
        case _:
            field = f"identity.{error.field}".removesuffix(".")
            place = "#/" + field.replace(".", "/").replace("[", "/").replace("]", "")
            message = DetailedMessage(3, f"{field} {error.problem}")
    _log.warning("webhook_rejected", status=422, reason=message.text, hook=hook)
    return [ErrorMessage(place, [message])]


class _Strict(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Fields that Kratos may add, and those that are not recorded (credentials), are unusual."""


class _RecoveryAddress(_Strict):
    value: str
    via: str
    id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class _VerifiableAddress(_RecoveryAddress):
    verified: bool | None = None
    status: str | None = None
    verified_at: str | None = None


_TEXTS: Final = tuple((name, str | None, None) for name in ("updated_at", *SCALARS))
_Identity: Final = msgspec.defstruct(
    "_Identity",
    [
        ("id", str),
        *_TEXTS,
        ("traits", object, None),
        ("metadata_public", object, None),
        ("verifiable_addresses", list[_VerifiableAddress] | None, None),
        ("recovery_addresses", list[_RecoveryAddress] | None, None),
    ],
    bases=(_Strict,),
)
_decode: Final = msgspec.json.Decoder(
    msgspec.defstruct("_Body", [("identity", _Identity)], bases=(_Strict,)), float_hook=finite
).decode
_times_of: Final = attrgetter("updated_at", *(n for n, read in SCALARS.items() if read is time))
_ids_of: Final = attrgetter("id", *(n for n, read in SCALARS.items() if read is uuid))


def usual_id(body: bytes) -> UUID | None:
    """The identity's id in a usual body; None for any other, which may be valid too."""
    if body.count(b'"identity"') != 1 or is_too_deep(body):
        return None
    if b"\\u00" in body and _ASCII_ESCAPE.search(body):
        return None
    try:
        decoded: Any = _decode(body)
        identity = decoded.identity
        times, ids = [*_times_of(identity)], [*_ids_of(identity)]
        for address in identity.recovery_addresses or ():
            times += (address.created_at, address.updated_at)
            ids.append(address.id)
        for proved in identity.verifiable_addresses or ():
            times += (proved.created_at, proved.updated_at, proved.verified_at)
            ids.append(proved.id)
        for each in times:
            if each is not None:
                from_rfc3339(each)
    except (ValueError, RecursionError):  # msgspec's own errors too
        return None
    uuids = [from_text(each) for each in ids if each is not None]
    return uuids[0] if all(uuids) and uuids[0] and uuids[0].int else None


def _read_in_full(body: bytes) -> tuple[JsonBody, dict[str, Json]]:
    decoded = decode(body)
    if decoded.replaced:
        _log.warning("webhook_characters_replaced", fields=dict(decoded.replaced))
    document = decoded.value.get("identity") if isinstance(decoded.value, dict) else None
    if document is None:
        raise IdentityIsNull("identity", "is null")
    if not isinstance(document, dict):
        raise InvalidField("", "is not an object")
    return decoded, document


def _says_nothing_else(body: bytes, decoded: JsonBody) -> bool:
    """Whether the body may be recorded as it came: nothing in it has to be dropped or replaced.

    A decoder shows the last of repeated keys only, so the text itself is searched; a key that is
    written with escapes needs one of those for ASCII.
    """
    return (
        isinstance(decoded.value, dict)
        and len(decoded.value) == 1
        and not decoded.replaced
        and body.count(b'"identity"') == 1
        and b'"credentials"' not in body
        and b'"metadata_admin"' not in body
        and not (b"\\u00" in body and _ASCII_ESCAPE.search(body))
    )
