"""Rejections in Kratos' form, which `parse` hooks show to the person at the form's fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.responses import JSONResponse

from kratos_sync.domain.json_values import Json


@dataclass(frozen=True, slots=True)
class DetailedMessage:
    """One message; Kratos passes id, text, type and context on to the user interface."""

    id: int
    text: str
    type: str = "error"
    context: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """Messages about one place: a JSON pointer such as "#/traits/email", or None for no place."""

    instance_ptr: str | None
    messages: Sequence[DetailedMessage]


def error_response(
    messages: Sequence[ErrorMessage],
    status_code: int = HTTPStatus.UNPROCESSABLE_ENTITY,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer with these messages as its body."""
    return JSONResponse({"messages": [_to_json(each) for each in messages]}, status_code, headers)


def status_response(
    status_code: int, text: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that HTTP alone rejects: one message, whose id is the status."""
    message = ErrorMessage(None, [DetailedMessage(status_code, text)])
    return error_response([message], status_code, headers)


def _to_json(error: ErrorMessage) -> dict[str, Json]:
    messages: list[Json] = [
        {
            "id": message.id,
            "text": message.text,
            "type": message.type,
            "context": None if message.context is None else dict(message.context),
        }
        for message in error.messages
    ]
    return {"instance_ptr": error.instance_ptr, "messages": messages}
