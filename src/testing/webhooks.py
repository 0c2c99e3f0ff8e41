"""Webhooks as Kratos sends them: made for a test, or recorded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from typing import Final, Literal
from uuid import UUID, uuid4

from kratos_sync.domain.json_values import Json

Flow = Literal["registration", "login", "settings", "verification", "recovery"]

_METHODS: Final[Mapping[str, str]] = {
    "registration": "registration.after.password",
    "login": "login.after.password",
    "settings": "settings.after.profile",
    "verification": "verification.after",
    "recovery": "recovery.after",
}
_RECORDINGS: Final = files("kratos_sync.testing") / "recordings" / "webhooks.jsonl"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A call of Kratos: the identity in its body, and the label of the hook."""

    identity: Mapping[str, Json]
    hook: str

    @property
    def identity_id(self) -> UUID:
        return UUID(str(self.identity["id"]))

    @property
    def body(self) -> bytes:
        """The body, as JSON."""
        return json.dumps({"identity": dict(self.identity)}).encode()


def webhook(
    flow: Flow = "registration",
    *,
    after: Webhook | None = None,
    email: str | None = None,
    traits: Mapping[str, Json] | None = None,
    at: datetime | None = None,
    hook: str | None = None,
    **fields: Json,
) -> Webhook:
    """A webhook of a flow, about a new identity or, with ``after``, about that of an earlier call.

    ``email`` becomes a trait and an address, which is verified by the flow "verification".
    ``traits`` replace all traits but that. ``at`` is when the identity changed, now by default.
    Other ``fields`` are put into the identity as they are.
    """
    time = _text(at or datetime.now(UTC))
    before = {} if after is None else dict(after.identity)
    identity: dict[str, Json] = {**_new(time), **before}
    known = identity["traits"] if traits is None else dict(traits)
    if email is not None:
        known = {**_mapping(known), "email": email}
        identity["verifiable_addresses"] = [_address(email, time)]
        identity["recovery_addresses"] = [_recovery_address(email, time)]
    if flow == "verification":
        addresses = _list(identity["verifiable_addresses"])
        identity["verifiable_addresses"] = [_verified(each, time) for each in addresses]
    elif after is not None and flow in {"settings", "recovery"}:
        identity["updated_at"] = time
    return Webhook({**identity, "traits": known, **fields}, hook or _METHODS[flow])


def recorded_webhooks() -> list[Webhook]:
    """The thirteen webhooks that a real Kratos sent for three people, in order."""
    calls = [json.loads(line) for line in _RECORDINGS.read_text().splitlines()]
    return [Webhook(each["body"]["identity"], each["headers"]["X-Kratos-Hook"]) for each in calls]


def _new(time: str) -> dict[str, Json]:
    return {
        "id": str(uuid4()),
        "schema_id": "default",
        "schema_url": "http://127.0.0.1:4433/schemas/ZGVmYXVsdA",
        "state": "active",
        "state_changed_at": time,
        "traits": {},
        "verifiable_addresses": [],
        "recovery_addresses": [],
        "metadata_public": None,
        "organization_id": None,
        "created_at": time,
        "updated_at": time,
    }


def _address(email: str, time: str) -> dict[str, Json]:
    return {**_recovery_address(email, time), "verified": False, "status": "sent"}


def _recovery_address(email: str, time: str) -> dict[str, Json]:
    times: dict[str, Json] = {"created_at": time, "updated_at": time}
    return {"id": str(uuid4()), "value": email, "via": "email", **times}


def _verified(address: Json, time: str) -> dict[str, Json]:
    proved: dict[str, Json] = {"verified": True, "status": "completed", "verified_at": time}
    return {**_mapping(address), **proved}


def _text(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _mapping(value: Json) -> dict[str, Json]:
    return dict(value) if isinstance(value, Mapping) else {}


def _list(value: Json) -> list[Json]:
    return list(value) if isinstance(value, list) else []
