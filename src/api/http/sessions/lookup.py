"""Finds a session in the cache, in a request to Kratos under way, or by a new request."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final

from kratos_sync.api.http.sessions.whoami import (
    NeedsSecondFactor,
    SessionCredential,
    Unknown,
    Whoami,
    WhoamiAnswer,
)
from kratos_sync.domain.session import KratosSession


class SessionCache:
    """Keeps sessions for a short time, and never beyond their end; the oldest are evicted first.

    The age of a session counts from the request to Kratos: later changes are not in the answer.
    The keys are digests of cookies and tokens, with a key that this process alone has. Only
    sessions are kept, no negative answers: a login must have effect at once.
    """

    def __init__(
        self,
        ttl: timedelta,
        max_entries: int,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Keep up to `max_entries` sessions for `ttl`; zero of either keeps none."""
        self._ttl = ttl.total_seconds()
        self._max_entries = max_entries
        self._monotonic = monotonic
        self._now = now
        self._digest_key = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, tuple[KratosSession, float]] = OrderedDict()

    def key(self, credential: SessionCredential) -> bytes:
        text = f"{credential.kind} {credential.value}".encode()
        return blake2b(text, key=self._digest_key, digest_size=32).digest()

    def get(self, key: bytes) -> KratosSession | None:
        """The session, if it is cached and fresh."""
        if key not in self._entries:
            return None
        session, good_until = self._entries[key]
        ends = session.expires_at
        if self._monotonic() >= good_until or ends is None or self._now() >= ends:
            del self._entries[key]
            return None
        return session

    def clock(self) -> float:
        """The time of the clock that dates requests to Kratos."""
        return self._monotonic()

    def is_fresh(self, asked_at: float) -> bool:
        """Whether the answer to a request of that time may still be used."""
        return self._monotonic() < asked_at + self._ttl

    def put(self, key: bytes, session: KratosSession, asked_at: float) -> None:
        """Keep the answer to a request of that time, in place of any earlier one.

        An answer that is too old by now is not kept, nor is a session that never ends.
        """
        self._entries.pop(key, None)
        if not self.is_fresh(asked_at) or session.expires_at is None:
            return
        self._entries[key] = session, asked_at + self._ttl
        while self._entries and (len(self._entries) > self._max_entries or self._has_expired()):
            self._entries.popitem(last=False)

    def drop(self, key: bytes) -> None:
        self._entries.pop(key, None)

    def _has_expired(self) -> bool:
        """Whether the oldest entry has expired."""
        _, good_until = next(iter(self._entries.values()))
        return self._monotonic() >= good_until

    def __len__(self) -> int:
        return len(self._entries)


AAL2: Final = "aal2"


@dataclass(slots=True, eq=False)
class _Question:
    """A request to Kratos about one cookie or token."""

    asked_at: float | None = None
    """None while it waits for a connection."""
    task: "asyncio.Task[WhoamiAnswer]" = field(init=False)


class SessionLookup:
    """Asks Kratos once for all concurrent requests with the same cookie or token.

    A request shares no answer that was asked for longer ago than the cache's time, and no missing
    second factor that was asked for before the request arrived.
    """

    def __init__(
        self, whoami: Whoami, cache: SessionCache, max_questions: int, required_aal: str = "aal1"
    ) -> None:
        """Have up to `max_questions` running or waiting; one more is Unknown at once."""
        self._whoami = whoami
        self._cache = cache
        self._max_questions = max_questions
        self._required_aal = required_aal
        self._questions: dict[bytes, _Question] = {}
        self._tasks: set[asyncio.Task[WhoamiAnswer]] = set()

    async def find(self, credential: SessionCredential) -> WhoamiAnswer:
        """Find a session; cancelling this leaves the answer to others who share it."""
        key = self._cache.key(credential)
        session = self._cache.get(key)
        if session is not None and self.is_enough(session):
            return session
        question = self._questions.get(key)
        if session is None and question is not None and self._may_share(question):
            was_sent = question.asked_at is not None
            answer = await asyncio.shield(question.task)
            if not was_sent or self.is_enough(answer):
                return answer
            question = self._questions.get(key)
        if question is None or question.asked_at is not None:
            if len(self._tasks) >= self._max_questions:
                return Unknown(retry_after=1)
            question = self._ask(key, credential)
        return await asyncio.shield(question.task)

    def is_enough(self, answer: WhoamiAnswer) -> bool:
        """Whether no second factor is missing."""
        if isinstance(answer, KratosSession):
            return self._required_aal != AAL2 or answer.aal == AAL2
        return not isinstance(answer, NeedsSecondFactor)

    def drop(self, value: str) -> None:
        """Drop a cookie's value or a token; answers that are under way are not cached."""
        for credential in (SessionCredential("cookie", value), SessionCredential("token", value)):
            key = self._cache.key(credential)
            self._cache.drop(key)
            self._questions.pop(key, None)

    def _may_share(self, question: _Question) -> bool:
        return question.asked_at is None or self._cache.is_fresh(question.asked_at)

    def _ask(self, key: bytes, credential: SessionCredential) -> _Question:
        question = self._questions[key] = _Question()
        question.task = asyncio.create_task(self._answer(key, credential, question))
        self._tasks.add(question.task)
        question.task.add_done_callback(self._tasks.discard)
        return question

    async def _answer(
        self, key: bytes, credential: SessionCredential, question: _Question
    ) -> WhoamiAnswer:
        def sent() -> None:
            question.asked_at = self._cache.clock()

        try:
            answer = await self._whoami.ask(credential, sent)
            # Not if there is a newer question, or the session was forgotten meanwhile.
            if (
                isinstance(answer, KratosSession)
                and question.asked_at is not None
                and self._questions.get(key) is question
            ):
                self._cache.put(key, answer, question.asked_at)
            return answer
        finally:
            if self._questions.get(key) is question:
                del self._questions[key]
