"""The identities that a stand-in of Kratos has: a few whole documents."""

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Protocol
from uuid import UUID

Document = dict[str, Any]
"""An identity as JSON; with `credentials` or without."""


class People(Protocol):
    """Identities in the order of their ids, as JSON in UTF-8."""

    def listed(self, after: UUID, most: int) -> list[tuple[UUID, bytes]]:
        """Those that come after an id, without credentials."""

    def chosen(self, ids: Sequence[UUID]) -> list[tuple[UUID, bytes]]:
        """Those of these ids that there are, in order, without credentials."""

    def shown(self, identity_id: UUID) -> bytes | None:
        """One, with credentials."""

    def search(self, key: str, value: str) -> bytes | None:
        """The one with this `external_id`, or with this `identifier` among its credentials."""

    def remove(self, identity_id: UUID) -> bool:
        """Remove one; False if there was none."""


class Town:
    """People whom a test made, one by one."""

    def __init__(self, documents: Iterable[Mapping[str, Any]] = ()) -> None:
        self.documents: dict[UUID, Document] = {}
        for document in documents:
            self.put(document)

    def put(self, document: Mapping[str, Any]) -> UUID:
        """Add somebody, or put a new document in place of the old."""
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
    """As a listing shows it: administrators' metadata is always there."""
    shown = {key: value for key, value in document.items() if key != "credentials"}
    return {"metadata_admin": None, **shown}


def with_credentials(document: Mapping[str, Any]) -> Document:
    """As it is shown alone: with types and identifiers, and without secrets."""
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
