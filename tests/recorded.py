"""The recordings of a real Kratos, moved in time as if they ended now, and what they end in."""

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

FOLDER = Path(__file__).parent / "recordings"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
ADDRESSES = ("verifiable_addresses", "recovery_addresses")
TIMES = ("state_changed_at", "created_at", "updated_at", "verified_at")
COLUMNS = (
    "external_id",
    "schema_id",
    "schema_url",
    "state",
    "state_changed_at",
    "traits",
    *ADDRESSES,
    "metadata_public",
    "organization_id",
    "created_at",
    "updated_at",
)


@dataclass(frozen=True)
class Call:
    """A webhook: what of its headers matters, and its body."""

    headers: Mapping[str, str]
    body: bytes
    person: str

    @classmethod
    def recorded(cls, call: Mapping[str, Any]) -> Self:
        kept = ("Content-Type", "Ory-Webhook-Trigger-Id", "X-Kratos-Hook")
        headers = {name: call["headers"][name] for name in kept}
        identity = call["body"]["identity"]
        return cls(headers, json.dumps(call["body"]).encode(), identity["id"])

    def anew(self) -> "Call":
        """The same change, in another call of Kratos."""
        headers = {**self.headers, "Ory-Webhook-Trigger-Id": str(uuid4())}
        return Call(headers, self.body, self.person)

    @property
    def identity(self) -> dict[str, Any]:
        identity: dict[str, Any] = json.loads(self.body)["identity"]
        return identity


@dataclass(frozen=True)
class Recording:
    """Calls in the order they came, and what the Admin API listed in the end, by id."""

    calls: list[Call]
    listing: Mapping[str, Mapping[str, Any]]


def thirteen_calls() -> Recording:
    """Three people, each step by itself, one of them deleted later; and those whom admins made."""
    lines = (FOLDER / "webhooks.jsonl").read_text().splitlines()
    admin = json.loads((FOLDER / "admin.json").read_text())
    listed = [person for page in admin["pages"] for person in page["body"]]
    return _recording([json.loads(line) for line in lines], listed)


def two_hundred_lives() -> Recording:
    """866 calls of 200 people who lived at random, four at once."""
    lives = json.loads(gzip.decompress((FOLDER / "lives.json.gz").read_bytes()))
    return _recording(lives["calls"], lives["listing"])


def as_held(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What must stand in our columns when Kratos last said this; numbers as Jsonnet leaves them.

    Worked out from the JSON alone, with nothing of ours.
    """
    held: dict[str, Any] = {column: identity.get(column) for column in COLUMNS}
    held["traits"] = _in_doubles(held["traits"])
    for name in ADDRESSES:
        held[name] = _by_value(held[name])
    return {name: _moment(value) if name in TIMES else value for name, value in held.items()}


def as_stored(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ours in the same form."""
    stored: dict[str, Any] = {column: row[column] for column in COLUMNS}
    stored["traits"] = _in_doubles(stored["traits"])
    for name in ADDRESSES:
        stored[name] = _by_value(stored[name])
    return stored


def _recording(calls: list[Any], listing: list[Any]) -> Recording:
    text = json.dumps([calls, listing])
    newest = max(map(datetime.fromisoformat, TIME.findall(text)))
    by = datetime.now(UTC).replace(microsecond=0, tzinfo=None) - newest
    calls, listing = json.loads(TIME.sub(lambda found: _moved(found[0], by), text))
    return Recording(list(map(Call.recorded, calls)), {person["id"]: person for person in listing})


def _moved(time: str, by: timedelta) -> str:
    # Whole seconds only: the fractions, nine digits here and six there, are part of the recording.
    return (datetime.fromisoformat(time) + by).isoformat()


def _by_value(addresses: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (each["via"], each["value"]): {
            name: _moment(value) if name in TIMES else value for name, value in each.items()
        }
        for each in addresses
    }


def _moment(time: str | None) -> datetime | None:
    return None if time is None else datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", time))


def _in_doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_doubles(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
