"""What an application answers a `parse` hook, checked before Kratos breaks on it."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Final

from application.json_body import NotJson, decode
from domain.addresses import RecoveryAddress, VerifiableAddress
from domain.fields import InvalidField
from domain.json_values import Json

LARGEST_ANSWER: Final = 4_194_304
"""Bytes of JSON; Kratos reads no more than 5 MiB, and then no more of the answer."""

_NAME: Final = re.compile(r"[a-z_]{1,64}")


class InvalidAnswer(InvalidField):
    """An answer is nothing that Kratos would take as it was meant; names the field, no value."""


def checked(answer: object, *, registration: bool) -> dict[str, Json]:
    """The changes as plain JSON, none for None; raises InvalidAnswer.

    What Kratos would pass over in silence is an error too: unknown fields, empty texts and lists.
    So is whoever is inactive at a registration: Kratos stores the identity, and then shows the
    person an error and calls no webhook.
    """
    if answer is None:
        return {}
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
    """The value as Kratos would read it; raises InvalidAnswer for what is not JSON, or not kept."""
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
