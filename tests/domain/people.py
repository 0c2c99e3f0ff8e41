"""Ada, Grace and Mary, as Kratos would show them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import Json, canonical
from kratos_sync.domain.kratos_identity import COLUMNS, KratosIdentity
from kratos_sync.domain.merging import ReceivedWebhook

ADA = UUID("e52e75c7-afbb-4316-a4ef-3977a428a2ca")
GRACE = UUID("3280695c-9cfc-4f35-bc67-150e11d35f6d")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ADAS_ADDRESS = "8478cae5-8e9a-4cee-845c-2c296b4fe5bd"
ADAS_RECOVERY = "c0db3419-7881-4aa0-a87c-8cf2ee8f765e"
LOYAL = 2**53 + 1


def minutes(count: float) -> datetime:
    """That many minutes past noon."""
    return NOON + timedelta(minutes=count)


def written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def cause(number: int = 1) -> UUID:
    """The id of the event that causes a change."""
    return UUID(int=0x019A_B000_0000_7000_8000_0000_0000_0000 + (number << 80) + number)


def address(
    value: str = "ada@example.org",
    *,
    status: str = "sent",
    verified_at: datetime | None = None,
    address_id: str = ADAS_ADDRESS,
    **more: Json,
) -> dict[str, Json]:
    """A verifiable address; completed when it has been verified."""
    shape: dict[str, Json] = {
        "id": address_id,
        "value": value,
        "via": "email",
        "verified": verified_at is not None,
        "status": status if verified_at is None else "completed",
        "created_at": written(NOON),
        "updated_at": written(NOON),
    }
    if verified_at is not None:
        shape["verified_at"] = written(verified_at)
    return {**shape, **more}


def document(updated: float | None = 0, **changes: Json) -> dict[str, Json]:
    """Ada as a webhook shows her, `updated` that many minutes past noon."""
    shape: dict[str, Json] = {
        "id": str(ADA),
        "schema_id": "person",
        "schema_url": "http://kratos/schemas/person",
        "state": "active",
        "state_changed_at": written(NOON),
        "traits": {"email": "ada@example.org", "name": {"first": "Ada", "last": "Lovelace"}},
        "verifiable_addresses": [address()],
        "recovery_addresses": [{"id": ADAS_RECOVERY, "via": "email", "value": "ada@example.org"}],
        "metadata_public": None,
        "organization_id": None,
        "created_at": written(NOON),
    }
    if updated is not None:
        shape["updated_at"] = written(minutes(updated))
    return {**shape, **changes}


ALWAYS_SENT = (
    "schema_id",
    "state",
    "traits",
    "created_at",
    "updated_at",
    "organization_id",
    "metadata_public",
)
"""What every webhook of Kratos has, besides the id."""


def without(source: dict[str, Json], *fields: str) -> dict[str, Json]:
    return {key: value for key, value in source.items() if key not in fields}


def webhook(updated: float | None = 0, **changes: Json) -> Identity:
    return Identity.from_kratos(document(updated, **changes))


def exact(updated: float | None = 0, **changes: Json) -> Identity:
    """Ada as the Admin API shows her."""
    return Identity.from_admin_api(document(updated, **{"metadata_admin": None, **changes}))


def partial(updated: float | None = 0, **fields: Json) -> Identity:
    """A snapshot of these fields alone."""
    shape: dict[str, Json] = {"id": str(ADA), **fields}
    if updated is not None:
        shape["updated_at"] = written(minutes(updated))
    return Identity.from_kratos(shape)


class Known(NamedTuple):
    """A snapshot, and when a webhook was recorded or an answer asked for."""

    snapshot: Identity
    at: datetime


def known(*snapshots: Identity) -> list[Known]:
    """These snapshots, a minute after one another from one o'clock on."""
    return [Known(each, minutes(60 + number)) for number, each in enumerate(snapshots)]


def webhooks_after(recorded: Iterable[Known], moment: datetime) -> list[ReceivedWebhook]:
    """Of these the webhooks that were recorded after that moment."""
    return [
        ReceivedWebhook(*each)
        for each in recorded
        if each.at > moment and not each.snapshot.is_exact
    ]


def consumed(order: Sequence[Known], recorded: Sequence[Known] = ()) -> KratosIdentity:
    """Our copy after these, consumed in this order, where all of the `recorded` are on record."""
    row: KratosIdentity | None = None
    for number, (snapshot, at) in enumerate(order, start=1):
        if row is None:
            row = KratosIdentity.seen(snapshot, at=at, cause=cause(number))
            continue
        later = webhooks_after(recorded or order, at)
        row.update(snapshot, at=at, cause=cause(number), later=later)
    assert row is not None
    return row


def met(*snapshots: Identity) -> KratosIdentity:
    """Our copy after these snapshots, known and consumed in this order, its facts collected."""
    row = consumed(known(*snapshots))
    row.collect_events()
    row.mark_stored()
    return row


def tombstone(at: datetime, number: int = 1) -> KratosIdentity:
    """What is left of Ada, of whom nothing was known when she was deleted."""
    row = KratosIdentity.unseen(ADA, at=at)
    row.mark_deleted(at=at, cause=cause(number))
    return row


def row_of(identity: KratosIdentity) -> dict[str, str]:
    """Every column but those about events, as texts in which 1 and true differ."""
    return {
        column: _as_text(getattr(identity, column))
        for column in COLUMNS
        if column not in {"version", "synced_at"}
    }


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return str([(each.via, each.value, *each.order) for each in value])
    if isinstance(value, dict):
        return canonical(value)
    return repr(value)
