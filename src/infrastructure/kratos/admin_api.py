"""Kratos' Admin API over HTTP."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final
from urllib.parse import urljoin, urlsplit
from uuid import UUID

import msgspec
import structlog
from pydantic import SecretStr

from kratos_sync.application.json_body import MAX_DEPTH, NotJson, decode
from kratos_sync.application.ports.kratos import (
    MOST_AT_ONCE,
    KratosNotConfigured,
    KratosRefused,
    KratosUnavailable,
    Page,
)
from kratos_sync.application.rate_limiter import RateLimiter
from kratos_sync.domain.identity import Identity, InvalidIdentity
from kratos_sync.domain.json_values import Json
from kratos_sync.infrastructure.kratos.http_client import OK, Answer, Endpoint
from kratos_sync.infrastructure.kratos.retrying import (
    AskedToWait,
    Circuit,
    Patience,
    RetryingCaller,
    retry_after,
)

LISTING: Final = "/admin/identities"
_PARAMETER: Final = r"""\s*;\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([^\s";,]+))"""
_LINK: Final = re.compile(rf"<([^>]*)>((?:{_PARAMETER})*)")
_TOKEN: Final = re.compile(r"[!$-~]{1,4096}")  # what may stand in a query, "#" apart


def next_token(link: str | None, asked: str) -> str | None:
    """Give the query that leads to the next page; None if there is no such link.

    ``asked`` is the URL of this page. Raises KratosRefused for a link that leads elsewhere or
    nowhere new: only the query is ever followed, and only if host and path are where we are. Kratos
    writes the path without what a proxy took off.
    """
    target = _target(link or "")
    if target is None:
        return None
    here, there = urlsplit(asked), urlsplit(urljoin(asked, target))
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        raise KratosRefused("its Link leads to another place")
    if there.path not in {here.path, LISTING}:
        raise KratosRefused("its Link leads to another path")
    if there.query == here.query or not is_token(there.query):
        raise KratosRefused("its Link leads nowhere")
    return there.query


def is_token(query: str) -> bool:
    """Whether this could be one of ours, and nothing that breaks out of a request's first line."""
    return _TOKEN.fullmatch(query) is not None


def _target(link: str) -> str | None:
    for target, parameters, *_ in _LINK.findall(link):
        for name, quoted, bare in re.findall(_PARAMETER, parameters):
            if name.lower() == "rel" and "next" in (quoted or bare).lower().split():
                return str(target)
    return None


DEEPEST: Final = MAX_DEPTH + 8
"""Deep enough for whoever reads it to see that it cannot be kept; the page has a level itself."""
_TOKEN_OF_DEPTH: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def pruned(body: bytes) -> bytes:
    """Give the JSON with null in place of every object and array at a level below the deepest."""
    return b"".join(_kept(body))


def _kept(body: bytes) -> Iterator[bytes]:
    depth = start = 0
    for token in _TOKEN_OF_DEPTH.finditer(body):
        if token[0] in b"[{":
            depth += 1
            if depth == DEEPEST + 1:
                yield body[start : token.start()] + b"null"
        elif token[0] in b"]}":
            if depth == DEEPEST + 1:
                start = token.end()
            depth -= 1
    if depth <= DEEPEST:
        yield body[start:]


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


SCAN: Final = Patience(attempt=60, in_all=180, if_asked=900)
ONE: Final = Patience(attempt=5, in_all=10, if_asked=10)
LARGEST_PAGE: Final = 64 * 1024 * 1024
LARGEST_IDENTITY: Final = 2 * 1024 * 1024
IDS_A_CALL: Final = 80
"""So many ids make a URL, and a Link that repeats it, of less than the 4 KiB that any proxy takes.

Nor does the page's size cut the answer, which it otherwise does from 250 on without a word.
"""


class HttpKratosAdmin:
    """A `KratosAdmin` over HTTP. It connects when it is first used.

    ``rate`` bounds the calls a second, its own repetitions too. One that is ``patient`` waits with
    every call as long as with a page. ``pause`` waits for so many seconds, half a second at a time
    and before each attempt, and may raise to end a call.
    """

    def __init__(
        self,
        url: SecretStr | None,
        token: SecretStr | None = None,
        *,
        rate: float | None = None,
        patient: bool = False,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises KratosNotConfigured without a URL, ValueError for a rate that is not above 0."""
        if url is None:
            raise KratosNotConfigured
        self._endpoint = Endpoint(url, token)
        self._patience = SCAN if patient else ONE
        bucket = None if rate is None else RateLimiter(rate, clock=clock)
        self._persistence = RetryingCaller(Circuit(clock=clock), bucket, clock, pause)

    def page(self, token: str | None) -> Page:
        """Give a page of the listing; raises ValueError for a token that is none."""
        if token is not None and not is_token(token):
            raise ValueError("this is no page's token")
        query = f"page_size={MOST_AT_ONCE}" if token is None else token
        return self._persistence.call(SCAN, partial(self._page, f"{LISTING}?{query}"))

    def find(self, identity_id: UUID) -> Identity | None:
        """Give an identity as it is now, or None."""
        return self._persistence.call(self._patience, partial(self._find, identity_id))

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, Identity]:
        """Give those identities that there are, in several calls if they are many."""
        if len(ids) > MOST_AT_ONCE:
            raise ValueError(f"at most {MOST_AT_ONCE} ids can be asked for at once")
        found: dict[UUID, Identity] = {}
        for some in _in_calls(ids):
            found |= self._persistence.call(self._patience, partial(self._find_some, some))
        return found

    def delete(self, identity_id: UUID) -> bool:
        """Remove an identity; False if it was gone."""
        return self._persistence.call(self._patience, partial(self._delete, identity_id))

    def close(self) -> None:
        """Close every connection."""
        self._endpoint.close()

    def _page(self, target: str, seconds: float) -> Page:
        answer = self._endpoint.call("GET", target, LARGEST_PAGE, seconds)
        identities = listing_of(answer)
        link = next_token(answer.headers.get("link"), self._endpoint.url_of(target))
        return Page(identities, link)

    def _find(self, identity_id: UUID, seconds: float) -> Identity | None:
        target = f"{LISTING}/{identity_id}"
        answer = self._endpoint.call("GET", target, LARGEST_IDENTITY, seconds)
        if is_gone(answer):
            return None
        identity = identity_of(document_of(answer))
        if identity.id != identity_id:
            raise KratosRefused("its answer is another identity", OK)
        return identity

    def _find_some(self, ids: Sequence[UUID], seconds: float) -> dict[UUID, Identity]:
        query = "&".join(f"ids={identity_id}" for identity_id in ids)
        target = f"{LISTING}?{query}&page_size={MOST_AT_ONCE}"
        answer = self._endpoint.call("GET", target, LARGEST_PAGE, seconds)
        documents = document_of(answer)
        if not isinstance(documents, list):
            raise KratosRefused("its answer is no listing", OK)
        found = {identity.id: identity for identity in map(identity_of, documents)}
        # A Kratos too old to know `ids` gives the first page of all: who is not in it is not gone.
        if not found.keys() <= set(ids):
            raise KratosRefused("its answer is not about the identities asked for", OK)
        return found

    def _delete(self, identity_id: UUID, seconds: float) -> bool:
        target = f"{LISTING}/{identity_id}"
        answer = self._endpoint.call("DELETE", target, LARGEST_IDENTITY, seconds)
        if is_gone(answer):
            return False
        expect(answer, NO_CONTENT)
        return True


def _in_calls(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), IDS_A_CALL):
        yield distinct[start : start + IDS_A_CALL]
