"""Kratos as a sender at a steady rate: three attempts of 30 s each, 1 s and 2 s apart."""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid4

from tests.end_to_end.wire import call

ATTEMPT_SECONDS: Final = 30
PAUSES: Final = (1, 2)


@dataclass
class SteadySender:
    """Sends webhooks, each of another identity, and tries them again as Kratos does.

    It has it from github.com/hashicorp/go-retryablehttp: what is no answer, 429 and 5xx but for
    501 are tried again, after Retry-After where 429 and 503 say one.
    """

    port: int
    rate: float
    sent: list[UUID] = field(default_factory=list)
    accepted: list[UUID] = field(default_factory=list)
    lost: dict[UUID, str] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    under_way: int = 0
    most_under_way: int = 0
    longest: float = 0

    async def send(self, stop: asyncio.Event) -> None:
        """Send until stopped, and come back when every call has ended."""
        async with asyncio.TaskGroup() as calls:
            next_at = time.monotonic()
            while not stop.is_set():
                calls.create_task(self._call())
                next_at += 1 / self.rate
                await asyncio.sleep(next_at - time.monotonic())

    async def _call(self) -> None:
        person = uuid4()
        self.sent.append(person)
        body = json.dumps({"identity": {"id": str(person), "traits": {"n": "x" * 800}}}).encode()
        request = call(body, f"Ory-Webhook-Trigger-Id: {uuid4()}", "Connection: close")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        began = time.monotonic()
        try:
            for pause in (*PAUSES, None):
                said, wait = await self._attempt(request)
                self.answers[said] = self.answers.get(said, 0) + 1
                if said == "200":
                    self.accepted.append(person)
                    return
                if said.startswith("4") or pause is None:
                    self.lost[person] = said
                    return
                await asyncio.sleep(wait or pause)
        finally:
            self.longest = max(self.longest, time.monotonic() - began)
            self.under_way -= 1

    async def _attempt(self, request: bytes) -> tuple[str, float]:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                answer = await self._answer(request)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            return type(error).__name__, 0
        status, *headers = answer.decode().lower().split("\r\n")
        waits = [line.split(":")[1] for line in headers if line.startswith("retry-after:")]
        return status.split()[1], float(waits[0]) if waits else 0

    async def _answer(self, request: bytes) -> bytes:
        reading, writing = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writing.write(request)
            return await reading.readuntil(b"\r\n\r\n")
        finally:
            writing.close()
            with suppress(OSError):
                await writing.wait_closed()
