"""Finding a session: in memory, in an answer that is on its way, or at Kratos."""

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
    KratosSession,
    NeedsSecondFactor,
    SessionCredential,
    Unknown,
    Whoami,
    WhoamiAnswer,
)


@dataclass(frozen=True, slots=True)
class _Entry:
    session: KratosSession
    good_until: float


class SessionCache:
    """Keeps a session for a short time, and never beyond its end; those told first make room.

    They are about in the order in which they grow old, so people who have left do not stay in
    memory. A session is as old as the question: what happened after that is not in the answer.

    Cookies and tokens are not kept, but a digest of each with a key that this process alone has.
    Only what there is, is kept: whoever has just logged in must not be told otherwise.
    """

    def __init__(
        self,
        ttl: timedelta,
        max_entries: int,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Keep up to `max_entries` sessions for `ttl`; either may be zero, which keeps none."""
        self._ttl = ttl.total_seconds()
        self._max_entries = max_entries
        self._monotonic = monotonic
        self._now = now
        self._digest_key = secrets.token_bytes(32)
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def key(self, credential: SessionCredential) -> bytes:
        """What stands for a cookie or a token in here."""
        text = f"{credential.kind} {credential.value}".encode()
        return blake2b(text, key=self._digest_key, digest_size=32).digest()

    def get(self, key: bytes) -> KratosSession | None:
        """The session, if it is known and still good."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires_at = entry.session.expires_at
        if self._monotonic() >= entry.good_until or expires_at is None or self._now() >= expires_at:
            del self._entries[key]
            return None
        return entry.session

    def clock(self) -> float:
        """The time by which questions are dated."""
        return self._monotonic()

    def is_fresh(self, asked_at: float) -> bool:
        """Whether the answer to a question of that time may still be used."""
        return self._monotonic() < asked_at + self._ttl

    def put(self, key: bytes, session: KratosSession, asked_at: float) -> None:
        """Keep the answer to a question of that time, in place of any that came before.

        One that is too old by now is not kept, nor is a session that never ends.
        """
        self._entries.pop(key, None)
        if not self.is_fresh(asked_at) or session.expires_at is None:
            return
        now = self._monotonic()
        self._entries[key] = _Entry(session, asked_at + self._ttl)
        while self._entries and (len(self._entries) > self._max_entries or self._is_old(now)):
            self._entries.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """Keep it no longer."""
        self._entries.pop(key, None)

    def _is_old(self, now: float) -> bool:
        """Whether what was put in first is not good any more."""
        return now >= next(iter(self._entries.values())).good_until

    def __len__(self) -> int:
        return len(self._entries)


AAL2: Final = "aal2"


@dataclass(slots=True, eq=False)
class _Question:
    """What Kratos is asked of one cookie or token."""

    asked_at: float | None = None
    """When it was sent; None while it waits for a connection."""
    task: "asyncio.Task[WhoamiAnswer]" = field(init=False)


class SessionLookup:
    """Asks Kratos once for all requests that come with one cookie or token at one time.

    No answer is given to a request that came more than the cache's time after the question, nor is
    a second factor found missing by a question from before the request came.
    """

    def __init__(
        self, whoami: Whoami, cache: SessionCache, max_questions: int, required_aal: str = "aal1"
    ) -> None:
        """Have up to `max_questions` under way or waiting; who would be one more gets Unknown."""
        self._whoami = whoami
        self._cache = cache
        self._max_questions = max_questions
        self._required_aal = required_aal
        self._questions: dict[bytes, _Question] = {}
        self._tasks: set[asyncio.Task[WhoamiAnswer]] = set()

    async def find(self, credential: SessionCredential) -> WhoamiAnswer:
        """What is known of a session; a caller that goes away takes nobody's answer along."""
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
        """Whether nothing is missing but a session: False where it needs a second factor."""
        if isinstance(answer, KratosSession):
            return self._required_aal != AAL2 or answer.aal == AAL2
        return not isinstance(answer, NeedsSecondFactor)

    def forget(self, value: str) -> None:
        """Ask Kratos anew about a cookie's value or a token; answers on their way come too late."""
        for credential in (SessionCredential("cookie", value), SessionCredential("token", value)):
            key = self._cache.key(credential)
            self._cache.forget(key)
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
