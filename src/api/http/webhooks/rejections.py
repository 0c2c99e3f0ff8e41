"""Rejections in Kratos' form, which `parse` hooks show to the person at the form's fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from traceback import extract_tb

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


def describe(error: BaseException) -> dict[str, Json]:
    """The types of an error and of its causes, and where it was raised, innermost place last.

    The texts are left out: a driver's or a parser's message may quote what a person typed.
    """
    types: list[Json] = []
    cause: BaseException | None = error
    while cause is not None:
        types.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    places: list[Json] = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)
    ]
    return {"error": types[0], "causes": types[1:], "places": places}
