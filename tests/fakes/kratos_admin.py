"""Kratos' Admin API, in memory."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from kratos_sync.application.json_body import decode
from kratos_sync.application.ports.kratos import MOST_AT_ONCE, KratosError, KratosUnavailable, Page
from kratos_sync.domain.identity import Identity
from tests.kratos.people import People

AWAY = KratosUnavailable("it was told to be away", timedelta(seconds=7))


class InMemoryKratos:
    """A `KratosAdmin` whose people a test decides on, and may change at any time.

    ``before`` is called before each answer, with the number of requests so far. ``page_size`` is
    how many are on a page.
    """

    def __init__(self, people: People, page_size: int = MOST_AT_ONCE) -> None:
        self.people = people
        self.page_size = page_size
        self.before: Callable[[int], None] = lambda _: None
        self.requests = 0
        self._error: KratosError | None = None
        self._failures_left = 0.0

    def fail(self, times: float = float("inf"), error: KratosError = AWAY) -> None:
        """Raise this at the next so many requests, or at every one."""
        self._error, self._failures_left = error, times

    def page(self, token: str | None) -> Page:
        """The page after the identity that the token names."""
        self._answer()
        if token is not None and not token.startswith("after-"):
            raise ValueError("this is no page's token")
        after = UUID(int=0) if token is None else UUID(token.removeprefix("after-"))
        listed = self.people.listed(after, self.page_size + 1)
        page = listed[: self.page_size]
        more = len(listed) > len(page)
        documents = [_storable(text) for _, text in page]
        text = json.dumps(documents, ensure_ascii=False, separators=(",", ":"))
        return Page(text.encode(), f"after-{page[-1][0]}" if more else None)

    def find(self, identity_id: UUID) -> Identity | None:
        """An identity as it is now, or None."""
        self._answer()
        shown = self.people.shown(identity_id)
        return None if shown is None else Identity.from_admin_api(_storable(shown))

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, Identity]:
        """Those that there are."""
        if len(ids) > MOST_AT_ONCE:
            raise ValueError(f"at most {MOST_AT_ONCE} ids can be asked for at once")
        if ids:
            self._answer()
        chosen = self.people.chosen(ids)
        return {each: Identity.from_admin_api(_storable(text)) for each, text in chosen}

    def delete(self, identity_id: UUID) -> bool:
        """Remove an identity; False if it was gone."""
        self._answer()
        return self.people.remove(identity_id)

    def _answer(self) -> None:
        self.requests += 1
        self.before(self.requests)
        if self._error is not None and self._failures_left > 0:
            self._failures_left -= 1
            raise self._error


def _storable(text: bytes) -> dict[str, object]:
    document = decode(text).value
    assert isinstance(document, dict)
    return document
