"""Finding a session: in memory, in an answer that is on its way, or at Kratos."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from api.sessions.cache import SessionCache
from api.sessions.credentials import SessionCredential
from api.sessions.session import KratosSession
from api.sessions.whoami import NeedsSecondFactor, Unknown, Whoami, WhoamiAnswer

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
