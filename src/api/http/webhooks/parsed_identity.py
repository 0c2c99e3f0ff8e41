"""The identity that a `parse` hook sends, and the changes or the refusal in answer to it."""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Self, TypedDict
from urllib.parse import quote
from uuid import UUID

from kratos_sync.api.http.webhooks.rejections import DetailedMessage, ErrorMessage
from kratos_sync.application.json_body import NotJson, decode
from kratos_sync.domain import fields
from kratos_sync.domain.addresses import RecoveryAddress, VerifiableAddress
from kratos_sync.domain.fields import InvalidField
from kratos_sync.domain.json_values import Json


@dataclass(frozen=True, slots=True)
class ParsedIdentity:
    """An identity as it would be stored; at a registration it has no id, and times of year 1."""

    id: UUID | None
    schema_id: str | None
    state: str | None
    external_id: str | None = dataclasses.field(repr=False)
    traits: Mapping[str, Json] = dataclasses.field(repr=False)
    metadata_public: Json = dataclasses.field(repr=False)
    document: Mapping[str, Json] = dataclasses.field(repr=False)
    """All of it as Kratos sent it; to change something, return it."""

    @property
    def is_registration(self) -> bool:
        """Whether Kratos asks before it stores a new identity; that may still fail afterwards."""
        return self.id is None

    @classmethod
    def from_kratos(cls, document: Mapping[str, Json]) -> Self:
        """Read `ctx.identity` of a `parse` hook; raises InvalidField."""
        known = None if document.get("id") == "" else fields.uuid(document, "id")
        traits = document.get("traits")
        return cls(
            id=known if known is not None and known.int else None,
            schema_id=fields.text(document, "schema_id"),
            state=fields.text(document, "state"),
            external_id=fields.text(document, "external_id"),
            traits=MappingProxyType(traits if isinstance(traits, dict) else {}),
            metadata_public=document.get("metadata_public"),
            document=MappingProxyType(dict(document)),
        )


class IdentityChanges(TypedDict, total=False):
    """What to store instead. Each field replaces the whole of Kratos' own: give all traits."""

    traits: Mapping[str, Json]
    schema_id: str
    state: Literal["active", "inactive"]
    verifiable_addresses: list[Json]
    recovery_addresses: list[Json]
    metadata_public: Json
    metadata_admin: Json
    external_id: str


LARGEST_ANSWER: Final = 4_194_304
"""Bytes of JSON; Kratos reads no more than 5 MiB, and then no more of the answer."""

_NAME: Final = re.compile(r"[a-z_]{1,64}")


class InvalidAnswer(InvalidField):
    """Kratos would not accept the answer, or ignore part of it; names the field, no value."""


def checked(answer: object, *, registration: bool) -> dict[str, Json]:
    """The changes as plain JSON; raises InvalidAnswer.

    What Kratos would ignore silently is an error too: unknown fields, empty texts and lists. So is
    `inactive` at a registration: Kratos stores the identity, then shows the person an error and
    calls no webhook.
    """
    if not isinstance(answer, Mapping):
        raise InvalidAnswer("", "is not a mapping")
    changes: dict[str, Json] = {}
    for name, value in answer.items():
        if name not in _CHECKS:
            known = isinstance(name, str) and _NAME.fullmatch(name)
            raise InvalidAnswer(name if known else "?", "is no field that Kratos takes")
        changes[name] = plain_json(name, value)
        _CHECKS[name](name, changes[name])
    if registration and changes.get("state") == "inactive":
        raise InvalidAnswer("state", "is inactive at a registration, which Kratos half makes")
    if changes and len(json.dumps(changes)) > LARGEST_ANSWER:
        raise InvalidAnswer("", "is too large")
    return changes


def plain_json(name: str, value: object) -> Json:
    """The value as Kratos would read it; raises InvalidAnswer if it is no JSON or not storable."""
    try:
        text = json.dumps(value, allow_nan=False, default=_as_dict)
        body = decode(text.encode())
    except (TypeError, ValueError, RecursionError, NotJson):
        raise InvalidAnswer(name, "is not JSON") from None
    if body.replaced:
        raise InvalidAnswer(name, "has a character that cannot be stored")
    return body.value


def _as_dict(value: object) -> dict[object, object]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


def _anything(name: str, value: Json) -> None:
    pass


def _object(name: str, value: Json) -> None:
    if not isinstance(value, dict):
        raise InvalidAnswer(name, "is not an object")


def _text(name: str, value: Json) -> None:
    if not isinstance(value, str):
        raise InvalidAnswer(name, "is not a string")
    if not value:
        raise InvalidAnswer(name, "is empty, which Kratos ignores")


def _state(name: str, value: Json) -> None:
    if value not in ("active", "inactive"):
        raise InvalidAnswer(name, "is neither active nor inactive")


def _addresses(read: Callable[[Mapping[str, Json]], object]) -> Callable[[str, Json], None]:
    def check(name: str, value: Json) -> None:
        if not isinstance(value, list):
            raise InvalidAnswer(name, "is not a list")
        if not value:
            raise InvalidAnswer(name, "is empty, which Kratos ignores")
        for index, each in enumerate(value):
            place = f"{name}[{index}]"
            if not isinstance(each, dict):
                raise InvalidAnswer(place, "is not an object")
            try:
                read(each)
            except InvalidField as error:
                raise InvalidAnswer(f"{place}.{error.field}", error.problem) from None

    return check


_CHECKS: Final[Mapping[object, Callable[[str, Json], None]]] = {
    "traits": _object,
    "schema_id": _text,
    "state": _state,
    "verifiable_addresses": _addresses(VerifiableAddress.from_kratos),
    "recovery_addresses": _addresses(RecoveryAddress.from_kratos),
    "metadata_public": _anything,
    "metadata_admin": _anything,
    "external_id": _text,
}


class RefuseIdentity(Exception):
    """The identity must not be stored; the messages say why, and the person sees them."""

    def __init__(self, messages: Sequence[ErrorMessage]) -> None:
        """Needs a message: "#/traits/email" shows one at that field, None above the form."""
        if not any(each.messages for each in messages):
            raise ValueError("a refusal needs a message")
        super().__init__("the identity is refused")
        self.messages = messages

    @classmethod
    def at(cls, pointer: str | None, *messages: DetailedMessage) -> Self:
        """A refusal with messages at one place."""
        return cls([ErrorMessage(pointer, messages)])

    def check(self) -> None:
        """Raises InvalidAnswer when Kratos could not read a message."""
        for each in self.messages:
            _check(isinstance(each.instance_ptr, str | None), "instance_ptr", "is not a string")
            for message in each.messages:
                _check(isinstance(message.id, int), "id", "is not an integer")
                _check(isinstance(message.text, str), "text", "is not a string")
                _check(isinstance(message.type, str), "type", "is not a string")
                plain_json("message", [each.instance_ptr, message.text, message.type])
                plain_json("context", message.context)


def field(*path: str | int) -> str:
    """The place of a trait: `field("name", "first")` is "#/traits/name/first".

    Names may hold anything. Kratos reads them as JSON pointers in a URL's fragment. Of a field that
    the form does not have Kratos makes a new text input. Raises ValueError for no path.
    """
    if not path:
        raise ValueError("a field has a name")
    # Kratos undoes the pointer's escapes first and the URL's after that.
    escaped = (quote(str(name), safe="~/").replace("~", "~0").replace("/", "~1") for name in path)
    return "#/traits/" + "/".join(escaped)


def _check(holds: bool, field: str, problem: str) -> None:
    if not holds:
        raise InvalidAnswer(field, problem)
