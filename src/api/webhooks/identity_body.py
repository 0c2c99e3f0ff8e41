"""The body of the seed's mapper, `{"identity": …}`, and what to answer when there is none in it."""

from collections.abc import Mapping
from typing import Final

import structlog

from api.webhooks.errors import DetailedMessage, ErrorMessage
from api.webhooks.json_body import decode
from domain.fields import InvalidField
from domain.identity import IdentityIdIsEmpty
from domain.json_values import Json

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class IdentityIsNull(InvalidField):
    """The body has no identity: there is no such key, it is null, or the body is no object."""


def read_identity(body: bytes) -> Mapping[str, Json]:
    """The identity's document in a body; raises NotJson, IdentityIsNull or InvalidField."""
    decoded = decode(body)
    if decoded.replaced:
        _log.warning("webhook_characters_replaced", fields=dict(decoded.replaced))
    identity = decoded.value.get("identity") if isinstance(decoded.value, dict) else None
    if identity is None:
        raise IdentityIsNull("identity", "is null")
    if not isinstance(identity, dict):
        raise InvalidField("", "is not an object")
    return identity


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
