"""What `kratos-sync dev` shows once everything runs."""

import json
import shlex
import sysconfig
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4


def banner(environment: Mapping[str, str], exports: Path, host: str, port: int) -> str:
    """What to try first: a line that registers somebody, and one that shows what became of it."""
    key = environment["KRATOS_WEBHOOK_API_KEYS"].split(",")[0].strip()
    header = f"{environment.get('KRATOS_WEBHOOK_API_KEY_HEADER', 'X-Api-Key')}: {key}"
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    identity = registration(datetime.now(UTC))
    curl = ["curl", "-i", f"{url}/kratos/sync-identity", "-H", header]
    curl += ["-H", "Content-Type: application/json", "-d", json.dumps({"identity": identity})]
    history = [_nearby(Path(program())), "history", str(identity["id"])]
    return f"""
Ready: {url} (Ctrl-C stops everything)
Key:   {header}

Somebody registers just now; copy this line into another terminal:
{shlex.join(curl)}

See what became of it, there:
(. {shlex.quote(_nearby(exports.absolute()))} && {shlex.join(history)})
"""


def program() -> str:
    """The path of `kratos-sync` itself, in the environment that runs it now."""
    return str(Path(sysconfig.get_path("scripts"), "kratos-sync"))


def registration(now: datetime) -> dict[str, object]:
    """A made-up person who registers now, in the form in which Kratos tells it."""
    email = "robin@example.org"
    moment = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    times = {"created_at": moment, "updated_at": moment}
    address = {"value": email, "via": "email", **times}
    unverified = {"status": "sent", "verified": False}
    return {
        "id": str(uuid4()),
        "schema_id": "person",
        "schema_url": "http://127.0.0.1:4433/schemas/cGVyc29u",
        "state": "active",
        "state_changed_at": moment,
        "traits": {"email": email, "name": {"first": "Robin", "last": "Example"}},
        "verifiable_addresses": [{"id": str(uuid4()), **address, **unverified}],
        "recovery_addresses": [{"id": str(uuid4()), **address}],
        "metadata_public": None,
        "organization_id": None,
        **times,
    }


def _nearby(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
