"""Kratos, as the application sees it: a caller with a key, and what it really once sent."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx

from kratos_sync.api.http.app import create_app
from kratos_sync.api.http.webhooks.handler import KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler
from kratos_sync.api.http.webhooks.sync_identity import KratosIdentitySyncHandler
from kratos_sync.application.ports.event_bus import EventBus, Provenance
from kratos_sync.application.ports.status import ReadinessCheck
from tests.fakes.event_bus import RecordingEventBus

RECORDINGS = Path(__file__).parents[2] / "recordings"
KEY = "a-key-of-no-worth"
SYNC = "/kratos/sync-identity"
PARSE = "/kratos/parse-identity"
TEATIME = datetime(1843, 7, 10, 16, 0, tzinfo=UTC)
ADA = UUID("e52e75c7-afbb-4316-a4ef-3977a428a2ca")

Body = bytes | AsyncIterator[bytes]


@dataclass(frozen=True)
class Recorded:
    """One call of Kratos', with its headers."""

    name: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def content(self) -> bytes:
        return json.dumps(self.body).encode()


@cache
def recorded_webhooks() -> tuple[Recorded, ...]:
    """The 13 calls of one person's life."""
    lines = (RECORDINGS / "webhooks.jsonl").read_text().splitlines()
    return tuple(_recorded(call["step"], call) for call in map(json.loads, lines))


@cache
def recorded_parse_calls() -> tuple[Recorded, ...]:
    """The first call of each case in which a hook was set to `parse`."""
    cases = json.loads((RECORDINGS / "responses.json").read_text())
    return tuple(
        _recorded(case["case"], case["calls"][0])
        for case in cases
        if case["case"].startswith("parse")
    )


def _recorded(name: str, call: dict[str, Any]) -> Recorded:
    headers = {k: v for k, v in call["headers"].items() if k != "Content-Length"}
    return Recorded(name, headers, call["body"])


def dedupe_key(call: Recorded, trigger: str | None = None) -> str:
    """The key that the attempts of one call share, and no other call."""
    trigger = trigger or call.headers["Ory-Webhook-Trigger-Id"]
    return f"webhook:{trigger}:{blake2b(call.content, digest_size=16).hexdigest()}"


def provenance_of(call: Recorded) -> Provenance:
    """Where the event of a recorded call comes from."""
    return Provenance("webhook", dedupe_key(call), None, call.headers["X-Kratos-Hook"])


def config(
    *keys: str,
    header: str | None = None,
    max_bytes: int = 1_048_576,
    timeout: timedelta = timedelta(seconds=10),
    room: int = 67_108_864,
) -> KratosWebHookHandlerConfig:
    return KratosWebHookHandlerConfig(keys or (KEY,), header, max_bytes, timeout, room)


def sync_handler(
    bus: EventBus,
    config: KratosWebHookHandlerConfig | None = None,
    max_wait: timedelta = timedelta(seconds=25),
) -> KratosIdentitySyncHandler:
    return KratosIdentitySyncHandler(
        config or KratosWebHookHandlerConfig((KEY,)), bus, uuid4, lambda: TEATIME, max_wait=max_wait
    )


class Api:
    """The application and its bus; calls have the right key and type unless they say otherwise."""

    def __init__(
        self,
        bus: RecordingEventBus | None = None,
        *,
        config: KratosWebHookHandlerConfig | None = None,
        sync: KratosIdentitySyncHandler | None = None,
        parse: KratosIdentityParseHandler | None = None,
        checks: Sequence[ReadinessCheck] = (),
        raises: bool = True,
    ) -> None:
        self.raises = raises
        self.bus = bus or RecordingEventBus()
        config = config or KratosWebHookHandlerConfig((KEY,))
        self.app = create_app(
            sync or sync_handler(self.bus, config),
            parse or KratosIdentityParseHandler(config),
            checks,
        )

    def post(
        self, path: str, content: Body, headers: Mapping[str, str | None] | None = None
    ) -> httpx.Response:
        """Post a body; a header of None is left out."""
        given = {"X-Api-Key": KEY, "Content-Type": "application/json", **(headers or {})}
        sent = {name: value for name, value in given.items() if value is not None}
        return self.request("POST", path, content=content, headers=sent)

    def say(self, body: object, headers: Mapping[str, str | None] | None = None) -> httpx.Response:
        """Post JSON to the sync handler."""
        return self.post(SYNC, json.dumps(body).encode(), headers)

    def request(
        self,
        method: str,
        path: str,
        *,
        content: Body | None = None,
        headers: Mapping[str, str] | Sequence[tuple[bytes, bytes]] = (),
    ) -> httpx.Response:
        return asyncio.run(self._request(method, path, content, headers))

    async def _request(
        self,
        method: str,
        path: str,
        content: Body | None,
        headers: Mapping[str, str] | Sequence[tuple[bytes, bytes]],
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=self.raises)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(
                method, path, content=content, headers=httpx.Headers(headers)
            )


def message(answer: httpx.Response) -> tuple[str | None, int, str]:
    """The place, id and text of the one message of an answer in Kratos' form."""
    ((place, ((number, text, kind, context),)),) = (
        (
            each["instance_ptr"],
            [(m["id"], m["text"], m["type"], m["context"]) for m in each["messages"]],
        )
        for each in answer.json()["messages"]
    )
    assert (kind, context) == ("error", None)
    return place, number, text
