"""A model of Kratos in which people live and administrators act, and which calls webhooks."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from kratos_sync.domain.fields import to_rfc3339
from kratos_sync.domain.large_integers import rounded
from kratos_sync.testing.kratos import Document, InMemoryDocuments

BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
SPACE = UUID("0c9f8a54-6f0f-4b80-9d3e-4f9b0a3a1d11")
LARGE = 2**53 + 1


class LivingKratos:
    """People by number, in a town; each action takes a second, and may do nothing.

    No webhook carries what administrators do or of their metadata; in those that there are numbers
    are doubles, and times are to the nanosecond where they have just moved.
    """

    def __init__(self, town: InMemoryDocuments) -> None:
        self.town = town
        self._calls: list[Document] = []
        self._seconds = 0
        self._lives: dict[int, int] = {}

    def calls(self) -> list[Document]:
        """Every webhook's identity, in the order they were made."""
        return self._calls

    def does(self, action: str, number: int, value: int) -> None:
        """Let a person, or an administrator with a person, do something."""
        self._seconds += 1
        document = self.town.documents.get(self._id(number))
        if action in BEGINNINGS:
            if document is None:
                self._lives[number] = self._lives.get(number, -1) + 1
                BEGINNINGS[action](self, number, value)
        elif document is not None:
            ACTIONS[action](self, document, value)

    def register(self, number: int, value: int) -> None:
        self._create(number, value)
        self._call(self._id(number))

    def log_in_by_code(self, document: Document, value: int) -> None:
        self._prove(document, value)
        self._call(_id_of(document))

    def log_in_by_passkey(self, document: Document, value: int) -> None:
        self._call(_id_of(document), without="verifiable_addresses")

    def verify(self, document: Document, value: int) -> None:
        self._prove(document, value)
        self._call(_id_of(document))

    def ask_for_a_code(self, document: Document, value: int) -> None:
        """A message was sent, to an address that is verified too: no webhook is sent."""
        for address in document["verifiable_addresses"][:1]:
            address.update(status="sent", updated_at=self._now)

    def change_settings(self, document: Document, value: int) -> None:
        document["traits"] = self._traits(document["traits"]["email"], value)
        document["updated_at"] = self._now
        self._call(_id_of(document))

    def change_address(self, document: Document, value: int) -> None:
        email = f"{value}-{self._seconds}@example.org"
        document["traits"] = {**document["traits"], "email": email}
        document["updated_at"] = self._now
        document["verifiable_addresses"] = [self._address(email, verified=False)]
        document["recovery_addresses"] = [self._address(email)]
        self._call(_id_of(document))

    def add_a_phone(self, document: Document, value: int) -> None:
        phone = self._address(f"+49{value}{self._seconds}", via="sms", verified=False)
        document["verifiable_addresses"].insert(0, phone)
        document["updated_at"] = self._now
        self._call(_id_of(document))

    def create(self, number: int, value: int) -> None:
        self._create(number, value, metadata_admin={"plan": value})

    def import_(self, number: int, value: int) -> None:
        self._create(number, value, external_id=f"crm-{number}-{self._seconds}")

    def patch_state(self, document: Document, value: int) -> None:
        state = "inactive" if document["state"] == "active" else "active"
        document.update(state=state, state_changed_at=self._now, updated_at=self._now)

    def patch_metadata(self, document: Document, value: int) -> None:
        name = "metadata_public" if value % 2 else "metadata_admin"
        document.update({name: {"n": LARGE + value}, "updated_at": self._now})

    def patch_traits(self, document: Document, value: int) -> None:
        document["traits"] = self._traits(document["traits"]["email"], value)
        document["updated_at"] = self._now

    def patch_external_id(self, document: Document, value: int) -> None:
        if document.pop("external_id", None) is None:
            document["external_id"] = f"crm-{value}-{self._seconds}"
        document["updated_at"] = self._now

    def delete(self, document: Document, value: int) -> None:
        self.town.remove(_id_of(document))

    def _create(self, number: int, value: int, **more: Any) -> None:
        email = f"Person{number}@example.org"
        now = self._now
        self.town.put(
            {
                "id": str(self._id(number)),
                "schema_id": "person",
                "schema_url": "http://127.0.0.1:4433/schemas/cGVyc29u",
                "state": "active",
                "state_changed_at": now,
                "traits": self._traits(email, value),
                "verifiable_addresses": [self._address(email.lower(), verified=False)],
                "recovery_addresses": [self._address(email.lower())],
                "metadata_public": None,
                "metadata_admin": None,
                "created_at": now,
                "updated_at": now,
                "organization_id": None,
                **more,
            }
        )

    def _address(self, value: str, via: str = "email", **more: Any) -> Document:
        proof = {"status": "pending", **more} if more else {}
        address = {"id": str(uuid5(SPACE, f"{value}{self._seconds}{bool(more)}")), "via": via}
        return {
            **address,
            "value": value,
            **proof,
            "created_at": self._now,
            "updated_at": self._now,
        }

    def _prove(self, document: Document, value: int) -> None:
        addresses = document["verifiable_addresses"]
        proof = {"verified": True, "status": "completed", "verified_at": self._now}
        addresses[value % len(addresses)].update(proof)

    def _traits(self, email: str, value: int) -> Document:
        return {"email": email, "n": LARGE + value, "name": {"first": f"Ada {value}"}}

    def _call(self, identity_id: UUID, without: str | None = None) -> None:
        sent = deepcopy(self.town.documents[identity_id])
        del sent["metadata_admin"]
        sent.pop(without or "", None)
        sent["traits"] = rounded(sent["traits"])
        sent["metadata_public"] = rounded(sent["metadata_public"])
        # Whatever moved just now is sent in nanoseconds, and once only.
        precise = f"{self._now[:-1]}789Z"
        if sent["state_changed_at"] == self._now:
            sent["state_changed_at"] = precise
        for address in sent.get("verifiable_addresses", ()):
            if address.get("verified_at") == self._now:
                address["verified_at"] = precise
        sent.get("verifiable_addresses", []).reverse()
        self._calls.append(sent)

    def _id(self, number: int) -> UUID:
        # Whoever comes back after a deletion is another identity.
        return uuid5(SPACE, f"person {number}, life {self._lives.get(number, 0)}")

    @property
    def _now(self) -> str:
        return to_rfc3339(BEGAN + timedelta(seconds=self._seconds, microseconds=123456))


BEGINNINGS: Mapping[str, Callable[[LivingKratos, int, int], None]] = {
    "register": LivingKratos.register,
    "create": LivingKratos.create,
    "import": LivingKratos.import_,
}
ACTIONS: Mapping[str, Callable[[LivingKratos, Document, int], None]] = {
    "log in by code": LivingKratos.log_in_by_code,
    "log in by passkey": LivingKratos.log_in_by_passkey,
    "verify": LivingKratos.verify,
    "recover": LivingKratos.verify,
    "ask for a code": LivingKratos.ask_for_a_code,
    "change settings": LivingKratos.change_settings,
    "change address": LivingKratos.change_address,
    "add a phone": LivingKratos.add_a_phone,
    "patch state": LivingKratos.patch_state,
    "patch metadata": LivingKratos.patch_metadata,
    "patch traits": LivingKratos.patch_traits,
    "patch external id": LivingKratos.patch_external_id,
    "delete": LivingKratos.delete,
}


def _id_of(document: Mapping[str, Any]) -> UUID:
    return UUID(document["id"])
