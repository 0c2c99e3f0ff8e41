"""Saying no to an identity, at the fields of the form that the person filled in."""

from collections.abc import Sequence
from typing import Self
from urllib.parse import quote

from api.webhooks.errors import DetailedMessage, ErrorMessage
from api.webhooks.parse_answer import InvalidAnswer, plain_json


class RefuseIdentity(Exception):
    """The identity shall not be stored; the messages say why, where the person sees them."""

    def __init__(self, messages: Sequence[ErrorMessage]) -> None:
        """One message at least: "#/traits/email" shows it at that field, None above the form."""
        if not any(each.messages for each in messages):
            raise ValueError("a refusal without a message would reach nobody")
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
