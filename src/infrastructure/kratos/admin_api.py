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
from kratos_sync.infrastructure.kratos.http_client import OK, Endpoint, Response
from kratos_sync.infrastructure.kratos.retrying import (
    AskedToWait,
    CircuitBreaker,
    RetryingCaller,
    TimeLimits,
    retry_after,
)
from kratos_sync.infrastructure.observability.observer import UNOBSERVED, Observer
from kratos_sync.infrastructure.observability.spans import NO_SPANS, Spans

LISTING: Final = "/admin/identities"
ONE: Final = f"{LISTING}/{{id}}"
TEMPLATES: Final = {"page": LISTING, "find": ONE, "find_all": LISTING, "delete": ONE}
"""The paths of operations, without ids and queries."""
PAGE_LIMITS: Final = TimeLimits(attempt=60, total=180, total_if_asked=900)
CALL_LIMITS: Final = TimeLimits(attempt=5, total=10, total_if_asked=10)
LARGEST_PAGE: Final = 64 * 1024 * 1024
LARGEST_IDENTITY: Final = 2 * 1024 * 1024
IDS_PER_CALL: Final = 80
"""The URL, and a Link header that repeats it, stay below the 4 KiB that any proxy takes.

Nor does the page size cut the answer, as it silently does from 250 ids on.
"""
DEEPEST: Final = MAX_DEPTH + 8
"""Deep enough for the reader to see that it is too deep; the page itself has a level."""
NO_CONTENT, TIMED_OUT, NOT_FOUND, TOO_MANY, SERVER_ERROR = 204, 408, 404, 429, 500

_NOT_FOUND_MESSAGE: Final = "Unable to locate the resource"
_PARAMETER: Final = r"""\s*;\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([^\s";,]+))"""
_LINK: Final = re.compile(rf"<([^>]*)>((?:{_PARAMETER})*)")
_QUERY: Final = re.compile(r"[!$-~]{1,4096}")  # what may stand in a query, "#" apart
_JSON_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')
# Escapes that `jsonb` refuses: a pair of surrogates is one character, a lone one is none.
_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u(?P<refused>0000|[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\."
)
_skip: Final = msgspec.json.Decoder(msgspec.Raw).decode
_skip_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class HttpKratosAdmin:
    """The KratosAdmin port over HTTP. It connects when it is first used.

    ``rate`` bounds the calls a second, retries included. With ``keeps_trying`` every call is
    retried for as long as a page. ``pause`` waits for so many seconds, half a second at a time and
    before each attempt, and may raise to end a call.
    """

    def __init__(
        self,
        url: SecretStr | None,
        token: SecretStr | None = None,
        *,
        rate: float | None = None,
        keeps_trying: bool = False,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer = UNOBSERVED,
        spans: Spans = NO_SPANS,
    ) -> None:
        """Raises KratosNotConfigured without a URL, ValueError for a rate that is not above 0."""
        if url is None:
            raise KratosNotConfigured
        self._endpoint = Endpoint(url, token)
        self._url = self._endpoint.url_of("")
        self._limits = PAGE_LIMITS if keeps_trying else CALL_LIMITS
        rate_limiter = None if rate is None else RateLimiter(rate, clock=clock)
        circuit_breaker = CircuitBreaker(clock=clock, observer=observer)
        self._caller = RetryingCaller(circuit_breaker, rate_limiter, clock, pause)
        self._observer = observer
        self._spans = spans

    def page(self, token: str | None) -> Page:
        if token is not None and not is_token(token):
            raise ValueError("this is no page's token")
        query = f"page_size={MOST_AT_ONCE}" if token is None else token
        return self._caller.call(PAGE_LIMITS, partial(self._page, f"{LISTING}?{query}"))

    def find(self, identity_id: UUID) -> Identity | None:
        return self._caller.call(self._limits, partial(self._find, identity_id))

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, Identity]:
        """Give those that exist, in several calls if they are many."""
        if len(ids) > MOST_AT_ONCE:
            raise ValueError(f"at most {MOST_AT_ONCE} ids can be asked for at once")
        found: dict[UUID, Identity] = {}
        distinct = list(dict.fromkeys(ids))
        for start in range(0, len(distinct), IDS_PER_CALL):
            some = distinct[start : start + IDS_PER_CALL]
            found |= self._caller.call(self._limits, partial(self._find_some, some))
        return found

    def delete(self, identity_id: UUID) -> bool:
        return self._caller.call(self._limits, partial(self._delete, identity_id))

    def close(self) -> None:
        self._endpoint.close()

    def _page(self, target: str, seconds: float) -> Page:
        response = self._call("page", "GET", target, LARGEST_PAGE, seconds)
        identities = listing_of(response)
        link = next_token(response.headers.get("link"), self._endpoint.url_of(target))
        return Page(identities, link)

    def _find(self, identity_id: UUID, seconds: float) -> Identity | None:
        target = f"{LISTING}/{identity_id}"
        response = self._call("find", "GET", target, LARGEST_IDENTITY, seconds)
        if is_not_found(response):
            return None
        identity = identity_of(document_of(response))
        if identity.id != identity_id:
            raise KratosRefused("its answer is another identity", OK)
        return identity

    def _find_some(self, ids: Sequence[UUID], seconds: float) -> dict[UUID, Identity]:
        query = "&".join(f"ids={identity_id}" for identity_id in ids)
        target = f"{LISTING}?{query}&page_size={MOST_AT_ONCE}"
        documents = document_of(self._call("find_all", "GET", target, LARGEST_PAGE, seconds))
        if not isinstance(documents, list):
            raise KratosRefused("its answer is no listing", OK)
        found = {identity.id: identity for identity in map(identity_of, documents)}
        # A Kratos too old to know `ids` lists its first page: absence there proves no deletion.
        if not found.keys() <= set(ids):
            raise KratosRefused("its answer is not about the identities asked for", OK)
        return found

    def _delete(self, identity_id: UUID, seconds: float) -> bool:
        target = f"{LISTING}/{identity_id}"
        response = self._call("delete", "DELETE", target, LARGEST_IDENTITY, seconds)
        if is_not_found(response):
            return False
        expect(response, NO_CONTENT)
        return True

    def _call(
        self, operation: str, method: str, target: str, largest: int, seconds: float
    ) -> Response:
        began, status = time.perf_counter(), None
        try:
            with self._spans.request(operation, method, self._url, TEMPLATES[operation]) as span:
                response = self._endpoint.call(method, target, largest, seconds, span.headers)
                status = response.status
                span.answered(status)
            return response
        finally:
            self._observer.kratos_answered(operation, status, time.perf_counter() - began)


def next_token(link: str | None, asked: str) -> str | None:
    """Give the query that leads to the next page, from a Link header; None without such a link.

    ``asked`` is the URL of this page. Raises KratosRefused for a link to another host or path, or
    to the same page: only the query is ever followed. Kratos writes the path without the prefix
    that a proxy took off.
    """
    target = _next_target(link or "")
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
    """Whether this is a query, with nothing that breaks out of a request's first line."""
    return _QUERY.fullmatch(query) is not None


def _next_target(link: str) -> str | None:
    for target, parameters, *_ in _LINK.findall(link):
        for name, quoted, bare in re.findall(_PARAMETER, parameters):
            if name.lower() == "rel" and "next" in (quoted or bare).lower().split():
                return str(target)
    return None


def is_not_found(response: Response) -> bool:
    """Whether Kratos itself says that it has no such identity.

    Any other 404, as of a proxy that does not know the path, must never pass for a deletion.
    """
    if response.status != NOT_FOUND:
        return False
    try:
        body = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and (error.get("code"), error.get("message")) == (
        NOT_FOUND,
        _NOT_FOUND_MESSAGE,
    )


def expect(response: Response, status: int = OK) -> None:
    """Raise KratosUnavailable or KratosRefused if the response has another status."""
    if response.status == status:
        return
    problem, wait = f"it answered {response.status}", retry_after(response.headers)
    if response.status == TOO_MANY:
        raise AskedToWait(problem, wait)
    if response.status >= SERVER_ERROR or response.status == TIMED_OUT:
        raise (KratosUnavailable if wait is None else AskedToWait)(problem, wait)
    if response.status == NOT_FOUND:
        problem += ": is KRATOS_ADMIN_URL right?"
    raise KratosRefused(problem, response.status)


def listing_of(response: Response) -> bytes:
    """Give a page's JSON array, storable as `jsonb`; raises as `expect` does."""
    expect(response)
    body, replaced = _storable(response.body)
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


def document_of(response: Response) -> Json:
    """Give a 200's JSON, storable as `jsonb`; raises as `expect` does."""
    expect(response)
    try:
        _skip(_storable(response.body)[0])  # msgspec takes no lone surrogates
        response.body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise KratosUnavailable("its answer is not JSON") from None
    except RecursionError:
        raise KratosRefused("its answer is nested too deeply", OK) from None
    try:
        decoded = decode(response.body, exactly=True)
    except NotJson as error:  # valid JSON that cannot be stored: a retry would not help
        raise KratosRefused(f"its answer cannot be kept: {error}", OK) from None
    if decoded.replaced:
        _log.warning(
            "kratos_characters_replaced",
            characters=sum(decoded.replaced.values()),
            fields=sorted({name.partition(".")[0] for name in decoded.replaced}),
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


def pruned(body: bytes) -> bytes:
    """Give the JSON with null in place of every object and array below the deepest level."""
    return b"".join(_pieces_kept(body))


def _pieces_kept(body: bytes) -> Iterator[bytes]:
    depth = start = 0
    for token in _JSON_TOKEN.finditer(body):
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


def _storable(body: bytes) -> tuple[bytes, int]:
    """Replace the escapes that `jsonb` refuses by U+FFFD, and count them."""
    replaced = sum(escape["refused"] is not None for escape in _ESCAPE.finditer(body))
    if not replaced:
        return body, 0
    return _ESCAPE.sub(
        lambda escape: rb"\ufffd" if escape["refused"] else escape[0], body
    ), replaced
