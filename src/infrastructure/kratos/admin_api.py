"""Kratos' Admin API over HTTP."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final
from uuid import UUID

from pydantic import SecretStr

from application.ports.kratos import (
    MOST_AT_ONCE,
    KratosNotConfigured,
    KratosRefused,
    Page,
)
from domain.identity import Identity
from infrastructure.kratos.answers import (
    NO_CONTENT,
    document_of,
    expect,
    identity_of,
    is_gone,
    listing_of,
)
from infrastructure.kratos.circuit import Circuit
from infrastructure.kratos.endpoint import OK, Endpoint
from infrastructure.kratos.links import LISTING, is_token, next_token
from infrastructure.kratos.patience import Patience, Persistence
from infrastructure.kratos.rate import TokenBucket

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
        bucket = None if rate is None else TokenBucket(rate, clock=clock)
        self._persistence = Persistence(Circuit(clock=clock), bucket, clock, pause)

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
