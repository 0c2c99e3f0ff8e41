"""Finding a session: in memory, in an answer that is on its way, or at Kratos."""

import asyncio

from api.sessions.cache import SessionCache
from api.sessions.credentials import SessionCredential
from api.sessions.session import KratosSession
from api.sessions.whoami import Unknown, Whoami, WhoamiAnswer


class SessionLookup:
    """Asks Kratos once for all requests that come with one cookie or token at one time."""

    def __init__(self, whoami: Whoami, cache: SessionCache, max_questions: int) -> None:
        """Have up to `max_questions` under way; who would be one more gets Unknown."""
        self._whoami = whoami
        self._cache = cache
        self._max_questions = max_questions
        self._shared: dict[bytes, asyncio.Task[WhoamiAnswer]] = {}
        self._tasks: set[asyncio.Task[WhoamiAnswer]] = set()

    async def find(self, credential: SessionCredential) -> WhoamiAnswer:
        """What is known of a session; a caller that goes away takes nobody's answer along."""
        key = self._cache.key(credential)
        if (session := self._cache.get(key)) is not None:
            return session
        task = self._shared.get(key)
        if task is None:
            if len(self._tasks) >= self._max_questions:
                return Unknown(retry_after=1)
            task = asyncio.create_task(self._ask(key, credential))
            self._shared[key] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def forget(self, value: str) -> None:
        """Ask Kratos anew about a cookie's value or a token; answers on their way come too late."""
        for credential in (SessionCredential("cookie", value), SessionCredential("token", value)):
            key = self._cache.key(credential)
            self._cache.forget(key)
            self._shared.pop(key, None)

    async def _ask(self, key: bytes, credential: SessionCredential) -> WhoamiAnswer:
        task = asyncio.current_task()
        try:
            answer = await self._whoami.ask(credential)
            if isinstance(answer, KratosSession) and self._shared.get(key) is task:
                self._cache.put(key, answer)
            return answer
        finally:
            if self._shared.get(key) is task:
                del self._shared[key]
