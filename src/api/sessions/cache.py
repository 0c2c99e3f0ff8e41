"""Sessions that Kratos told of some seconds ago."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from api.sessions.credentials import SessionCredential
from api.sessions.session import KratosSession


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
