"""What an answer of the Admin API means, in the application's words."""

import re
from typing import Final

import msgspec
import structlog

from application.json_body import NotJson, decode
from application.ports.kratos import KratosRefused, KratosUnavailable
from domain.identity import Identity, InvalidIdentity
from domain.json_values import Json
from infrastructure.kratos.depth import pruned
from infrastructure.kratos.endpoint import OK, Answer
from infrastructure.kratos.patience import AskedToWait
from infrastructure.kratos.retry_after import retry_after

NOT_FOUND: Final = 404
NO_CONTENT: Final = 204
TOO_MANY: Final = 429
_TOO_SLOW: Final = 408
_SERVER_ERROR: Final = 500
_GONE: Final = "Unable to locate the resource"
_REPLACEMENT: Final = rb"\ufffd"
# A pair of surrogates is one character; a backslash in JSON always begins an escape.
_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u(?P<odd>0000|[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\."
)
_skip: Final = msgspec.json.Decoder(msgspec.Raw).decode
_skip_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


def is_gone(answer: Answer) -> bool:
    """Whether Kratos itself says that it has no such identity.

    A 404 in any other words comes from somebody else, such as a proxy that does not know the path:
    whoever took that for a deletion would delete everybody.
    """
    if answer.status != NOT_FOUND:
        return False
    try:
        said = msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    error = said.get("error") if isinstance(said, dict) else None
    return (
        isinstance(error, dict) and error.get("code") == NOT_FOUND and error.get("message") == _GONE
    )


def expect(answer: Answer, status: int = OK) -> None:
    """Return if the answer has this status. Raises KratosUnavailable or KratosRefused if not."""
    if answer.status == status:
        return
    problem = f"it answered {answer.status}"
    if answer.status == TOO_MANY:
        raise AskedToWait(problem, retry_after(answer.headers))
    if answer.status >= _SERVER_ERROR or answer.status == _TOO_SLOW:
        wait = retry_after(answer.headers)
        raise (KratosUnavailable if wait is None else AskedToWait)(problem, wait)
    if answer.status == NOT_FOUND:
        problem += ": is KRATOS_ADMIN_URL right?"
    raise KratosRefused(problem, answer.status)


def listing_of(answer: Answer) -> bytes:
    """Give a page's JSON array, storable as `jsonb`; raises as `expect` does."""
    expect(answer)
    body, replaced = _storable(answer.body)
    try:
        try:
            _skip_items(body)
        except RecursionError:
            body = pruned(body)
            _skip_items(body)
        body.decode()
    except msgspec.ValidationError:
        raise KratosRefused("its answer is no listing", OK) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise KratosUnavailable("its answer is not JSON") from None
    if replaced:
        _log.warning("kratos_characters_replaced", characters=replaced)
    return body


def document_of(answer: Answer) -> Json:
    """Give what a 200's body says, storable as `jsonb`; raises as `expect` does."""
    expect(answer)
    try:
        _skip(_storable(answer.body)[0])  # msgspec takes no lone surrogates
        answer.body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise KratosUnavailable("its answer is not JSON") from None
    except RecursionError:
        raise KratosRefused("its answer is nested too deeply", OK) from None
    try:
        decoded = decode(answer.body, exactly=True)
    except NotJson as error:  # JSON it is, but none that we could keep: no better next time
        raise KratosRefused(f"its answer cannot be kept: {error}", OK) from None
    if decoded.replaced:
        fields = {name.partition(".")[0] for name in decoded.replaced}
        _log.warning(
            "kratos_characters_replaced",
            characters=sum(decoded.replaced.values()),
            fields=sorted(fields),
        )
    return decoded.value


def identity_of(document: Json) -> Identity:
    """Read one identity; raises KratosRefused if it is none."""
    if not isinstance(document, dict):
        raise KratosRefused("its answer is no identity", OK)
    try:
        return Identity.from_admin_api(document)
    except InvalidIdentity as error:
        raise KratosRefused(f"its answer is no identity: {error}", OK) from None


def _storable(body: bytes) -> tuple[bytes, int]:
    """JSON without the escapes that `jsonb` refuses, and how many they were."""
    if b"\\u" not in body:
        return body, 0
    replaced = 0

    def replace(escape: re.Match[bytes]) -> bytes:
        nonlocal replaced
        if escape["odd"] is None:
            return escape[0]
        replaced += 1
        return _REPLACEMENT

    return _ESCAPE.sub(replace, body), replaced
