"""The body of the seed's mapper, `{"identity": …}`, and what to answer when there is none in it."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import structlog

from api.webhooks.errors import DetailedMessage, ErrorMessage
from application.json_body import JsonBody, decode
from domain.fields import InvalidField
from domain.identity import IdentityIdIsEmpty
from domain.json_values import Json

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
