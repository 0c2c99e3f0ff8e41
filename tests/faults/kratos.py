"""What Kratos does: calls the webhook steadily, each call up to three times."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, TypeAlias
from uuid import UUID, uuid4

import aiohttp

from kratos_sync.testing.kratos import InMemoryDocuments
from tests.faults.wires import Loop

ATTEMPT_SECONDS: Final = 30.0
CONNECT_SECONDS: Final = 3.0
PAUSES: Final = (1.0, 2.0)
LAST_ANSWERS_SECONDS: Final = 3 * ATTEMPT_SECONDS + sum(PAUSES) + 5
Route: TypeAlias = Callable[[], Sequence[str]]
"""The apis that a call may go to: the next one if one cannot be reached."""
NEW_PEOPLE: Final = 0.4
"""The part of the calls that are about somebody new."""
LIVELY_PEOPLE: Final = 200
"""The newest, whom the other calls are about: there are so many before there are others."""


@dataclass(slots=True, eq=False)
class Call:
    """A call of the webhook; times are the wall clock's seconds."""

    trigger: str
    person: str
    number: int
    sent_at: float
    answered_at: float | None = None
    status: int | None = None
    """The last answer; None if there was none."""

    @property
    def is_accepted(self) -> bool:
        """Whether it was answered 2xx, so that nothing of it may be lost."""
        return self.status is not None and 200 <= self.status < 300


class Kratos:
    """Sends calls in an open loop: when they are due, whether or not others were answered."""

    def __init__(self, loop: Loop, route: Route, key: str, seed: int) -> None:
        self._loop = loop
        self._route = route
        self._headers = {"Content-Type": "application/json", "X-Api-Key": key}
        self._random = Random(seed)
        self._people: dict[str, str] = {}
        self._stopped = asyncio.Event()
        self._under_way: set[Call] = set()
        self.calls: list[Call] = []
        self.identities = InMemoryDocuments()
        """As the newest call of each says."""

    def start(self, per_second: float) -> None:
        """Send so many calls a second from now on."""
        self._steady = asyncio.run_coroutine_threadsafe(self._send(per_second), self._loop.loop)

    def stop(self) -> None:
        """Send no more, and wait for the last answers."""
        self._loop.loop.call_soon_threadsafe(self._stopped.set)
        self._steady.result(LAST_ANSWERS_SECONDS)

    def call(self, **traits: object) -> "Future[Call]":
        """Send a call beside the others; it comes out when it is answered or dropped."""
        return asyncio.run_coroutine_threadsafe(self._call(traits), self._loop.loop)

    def is_waited_for(self, before: float) -> bool:
        """Whether some call that was sent before then is neither answered nor dropped."""
        return any(call.sent_at < before for call in list(self._under_way))

    async def _send(self, per_second: float) -> None:
        calls: set[asyncio.Task[Call]] = set()
        due = time.monotonic()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=ATTEMPT_SECONDS, sock_connect=CONNECT_SECONDS),
        ) as self._http:
            while not self._stopped.is_set():
                calls.add(task := asyncio.create_task(self._call({})))
                task.add_done_callback(calls.discard)
                due += 1 / per_second
                await asyncio.sleep(max(due - time.monotonic(), 0))
            await asyncio.gather(*calls)
            while self._under_way:
                await asyncio.sleep(0.05)

    async def _call(self, traits: dict[str, object]) -> Call:
        call = self._new_call()
        identity = self._identity(call, traits)
        self.identities.put(identity)
        body = json.dumps({"identity": identity})
        headers = {**self._headers, "Ory-Webhook-Trigger-Id": call.trigger}
        for pause in (*PAUSES, None):
            call.status = await self._attempt(body, headers)
            if pause is None or (call.status is not None and call.status < 500):
                break
            await asyncio.sleep(pause)
        call.answered_at = time.time()
        self._under_way.discard(call)
        return call

    async def _attempt(self, body: str, headers: dict[str, str]) -> int | None:
        for api in self._route():
            try:
                url = f"{api}/kratos/sync-identity"
                async with self._http.post(url, data=body, headers=headers) as answer:
                    return answer.status
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
                continue
            except (aiohttp.ClientError, TimeoutError):
                break
        return None

    def _new_call(self) -> Call:
        if len(self._people) < LIVELY_PEOPLE or self._random.random() < NEW_PEOPLE:
            person = str(UUID(int=self._random.getrandbits(128), version=4))
            self._people[person] = _now()
        else:
            person = self._random.choice(list(self._people)[-LIVELY_PEOPLE:])
        call = Call(str(uuid4()), person, len(self.calls), time.time())
        self.calls.append(call)
        self._under_way.add(call)
        return call

    def _identity(self, call: Call, traits: dict[str, object]) -> dict[str, Any]:
        created, now = self._people[call.person], _now()
        address = f"{call.person}@example.org"
        return {
            "id": call.person,
            "schema_id": "person",
            "schema_url": "http://127.0.0.1:4433/schemas/cGVyc29u",
            "state": "active",
            "state_changed_at": created,
            "traits": {"email": address, "number": call.number, "call": call.trigger, **traits},
            "verifiable_addresses": [],
            "recovery_addresses": [],
            "metadata_public": None,
            "organization_id": None,
            "created_at": created,
            "updated_at": now,
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
