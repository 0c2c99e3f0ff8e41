"""Kratos' Admin API in memory, with the identities that a test puts there."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from kratos_sync.application.json_body import decode
from kratos_sync.application.ports.kratos import MOST_AT_ONCE, KratosError, KratosUnavailable, Page
from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import Json

Document = dict[str, Any]
"""An identity as JSON; with `credentials` or without."""


class Documents(Protocol):
    """Identities in the order of their ids, as JSON in UTF-8."""

    def listed(self, after: UUID, most: int) -> list[tuple[UUID, bytes]]:
        """The first that come after an id, without credentials."""

    def chosen(self, ids: Sequence[UUID]) -> list[tuple[UUID, bytes]]:
        """Those of these ids that exist, in order, without credentials."""

    def shown(self, identity_id: UUID) -> bytes | None:
        """One, with credentials."""

    def search(self, key: str, value: str) -> bytes | None:
        """The one with this `external_id`, or this `identifier` among its credentials."""

    def remove(self, identity_id: UUID) -> bool:
        """Remove one; False if there was none."""


class InMemoryDocuments:
    """The documents that a test puts in."""

    def __init__(self, documents: Iterable[Mapping[str, Any]] = ()) -> None:
        self.documents: dict[UUID, Document] = {}
        for document in documents:
            self.put(document)

    def put(self, document: Mapping[str, Any]) -> UUID:
        """Add an identity, or replace its document."""
        identity_id = UUID(document["id"])
        self.documents[identity_id] = deepcopy(dict(document))
        return identity_id

    def listed(self, after: UUID, most: int) -> list[tuple[UUID, bytes]]:
        ids = [identity_id for identity_id in list(self.documents) if identity_id > after]
        return self.chosen(sorted(ids)[:most])

    def chosen(self, ids: Sequence[UUID]) -> list[tuple[UUID, bytes]]:
        found = [(each, self.documents.get(each)) for each in sorted(set(ids))]
        return [(each, _text(without_credentials(whole))) for each, whole in found if whole]

    def shown(self, identity_id: UUID) -> bytes | None:
        document = self.documents.get(identity_id)
        return None if document is None else _text(with_credentials(document))

    def search(self, key: str, value: str) -> bytes | None:
        for document in list(self.documents.values()):
            whole = with_credentials(document)
            identifiers = [
                each for kind in whole["credentials"].values() for each in kind["identifiers"]
            ]
            if value in ([whole.get(key)] if key == "external_id" else identifiers):
                return _text(whole)
        return None

    def remove(self, identity_id: UUID) -> bool:
        return self.documents.pop(identity_id, None) is not None


def without_credentials(document: Mapping[str, Any]) -> Document:
    """The document as a listing has it, always with `metadata_admin`."""
    shown = {key: value for key, value in document.items() if key != "credentials"}
    return {"metadata_admin": None, **shown}


def with_credentials(document: Mapping[str, Any]) -> Document:
    """The document as it is shown alone: credentials without secrets."""
    addresses = [address["value"] for address in document.get("verifiable_addresses", ())]
    password = {
        "type": "password",
        "identifiers": addresses,
        "version": 0,
        "created_at": document.get("created_at"),
        "updated_at": document.get("created_at"),
    }
    return {"metadata_admin": None, "credentials": {"password": password}, **document}


def _text(document: Document) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode(errors="surrogatepass")


UNAVAILABLE: Final = KratosUnavailable("the test made it unavailable", timedelta(seconds=7))


class InMemoryKratos:
    """The KratosAdmin port; a test may change ``people`` at any time.

    ``before`` is called before each answer, with the number of requests so far. ``page_size`` is
    the number of identities on a page.
    """

    def __init__(self, people: Documents, page_size: int = MOST_AT_ONCE) -> None:
        self.people = people
        self.page_size = page_size
        self.before: Callable[[int], None] = lambda _: None
        self.requests = 0
        self._error: KratosError | None = None
        self._failures_left = 0.0

    def fail(self, times: float = float("inf"), error: KratosError = UNAVAILABLE) -> None:
        """Raise the error for the next so many requests, or for all."""
        self._error, self._failures_left = error, times

    def page(self, token: str | None) -> Page:
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
        self._answer()
        shown = self.people.shown(identity_id)
        return None if shown is None else Identity.from_admin_api(_storable(shown))

    def find_all(self, ids: Sequence[UUID]) -> Mapping[UUID, Identity]:
        if len(ids) > MOST_AT_ONCE:
            raise ValueError(f"at most {MOST_AT_ONCE} ids can be asked for at once")
        if ids:
            self._answer()
        chosen = self.people.chosen(ids)
        return {each: Identity.from_admin_api(_storable(text)) for each, text in chosen}

    def delete(self, identity_id: UUID) -> bool:
        self._answer()
        return self.people.remove(identity_id)

    def _answer(self) -> None:
        self.requests += 1
        self.before(self.requests)
        if self._error is not None and self._failures_left > 0:
            self._failures_left -= 1
            raise self._error


def _storable(text: bytes) -> dict[str, Json]:
    document = decode(text).value
    if not isinstance(document, dict):
        raise ValueError("an identity's document is an object")  # noqa: TRY004  # of the content
    return document
