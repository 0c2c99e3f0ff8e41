"""The body of the seed's mapper, `{"identity": …}`, and what to answer when there is none in it."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
import structlog

from kratos_sync.api.http.webhooks.rejections import DetailedMessage, ErrorMessage
from kratos_sync.application.json_body import JsonBody, decode, finite, is_too_deep
from kratos_sync.domain import fields as uuids
from kratos_sync.domain.fields import InvalidField, from_rfc3339
from kratos_sync.domain.identity import IdentityIdIsEmpty
from kratos_sync.domain.json_values import Json

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()
_ASCII_ESCAPE: Final = re.compile(rb"\\u00[0-7]")


class IdentityIsNull(InvalidField):
    """The body has no identity: there is no such key, it is null, or the body is no object."""


class IdentityBody(NamedTuple):
    """An identity's document, and the body's own text where that says it and nothing else."""

    identity: Mapping[str, Json]
    text: bytes | None


def read_identity(body: bytes) -> IdentityBody:
    """The identity in a body; raises NotJson, IdentityIsNull or InvalidField."""
    decoded = decode(body)
    if decoded.replaced:
        _log.warning("webhook_characters_replaced", fields=dict(decoded.replaced))
    identity = decoded.value.get("identity") if isinstance(decoded.value, dict) else None
    if identity is None:
        raise IdentityIsNull("identity", "is null")
    if not isinstance(identity, dict):
        raise InvalidField("", "is not an object")
    return IdentityBody(identity, body if _says_nothing_else(body, decoded) else None)


def _says_nothing_else(body: bytes, decoded: JsonBody) -> bool:
    """Whether the text may be kept as it came: it must not hide what is dropped, or characters.

    Of keys that are there twice a decoder shows the last only, so the text itself is searched; a
    key that is written with escapes needs one of those for ASCII.
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


def refuse(error: InvalidField, hook: str | None) -> list[ErrorMessage]:
    """Log why a body is no identity and return what to answer with 422.

    Message 1 is for no identity and 2 for no id, at no place; 3 names any other field and is there.
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
    _log.warning("webhook_refused", status=422, reason=message.text, hook=hook)
    return [ErrorMessage(place, [message])]


class _Strict(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What Kratos may add one day, and what is not for us (credentials), is not ordinary."""


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


class _Identity(_Strict):
    id: str
    external_id: str | None = None
    schema_id: str | None = None
    schema_url: str | None = None
    state: str | None = None
    state_changed_at: str | None = None
    traits: object = None
    verifiable_addresses: list[_VerifiableAddress] | None = None
    recovery_addresses: list[_RecoveryAddress] | None = None
    metadata_public: object = None
    created_at: str | None = None
    updated_at: str | None = None
    organization_id: str | None = None
    region: str | None = None


class _Body(_Strict):
    identity: _Identity


_decode: Final = msgspec.json.Decoder(_Body, float_hook=finite).decode


def subject_of(body: bytes) -> UUID | None:
    """The id of the identity in an ordinary body; None for any other, which may be right too."""
    if body.count(b'"identity"') != 1 or is_too_deep(body):
        return None
    if b"\\u00" in body and _ASCII_ESCAPE.search(body):
        return None
    try:
        identity = _decode(body).identity
        times = [identity.state_changed_at, identity.created_at, identity.updated_at]
        ids = [identity.organization_id]
        for address in identity.recovery_addresses or ():
            times += (address.created_at, address.updated_at)
            ids.append(address.id)
        for proved in identity.verifiable_addresses or ():
            times += (proved.created_at, proved.updated_at, proved.verified_at)
            ids.append(proved.id)
        for time in times:
            if time is not None:
                from_rfc3339(time)
    except (ValueError, RecursionError):  # msgspec's own errors too
        return None
    for each in ids:
        if each is not None and uuids.from_text(each) is None:
            return None
    subject = uuids.from_text(identity.id)
    return subject if subject is not None and subject.int else None
