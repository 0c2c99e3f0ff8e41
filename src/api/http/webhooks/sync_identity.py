"""`POST /kratos/sync-identity`: records an event with the identity that Kratos sent."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from datetime import datetime, timedelta
from hashlib import blake2b
from http import HTTPStatus
from typing import Final
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kratos_sync.api.http.webhooks.handler import (
    KratosWebHookHandler,
    KratosWebHookHandlerConfig,
    note_result,
)
from kratos_sync.api.http.webhooks.identity_body import read_identity
from kratos_sync.api.http.webhooks.publisher import RetryingPublisher
from kratos_sync.api.http.webhooks.rejections import status_response
from kratos_sync.api.http.webhooks.requests import (
    first_headers,
    hook_label,
    traceparent,
    trigger_id,
)
from kratos_sync.application.ports.event_bus import EventBus, Provenance, Publishable, UnreadEvent
from kratos_sync.application.ports.hook_log import NO_LABEL
from kratos_sync.application.ports.kratos import HeldElsewhere
from kratos_sync.domain.events import (
    KratosIdentityHinted,
    KratosIdentityUpdated,
    KratosTemplateFailed,
)
from kratos_sync.domain.id_range import ALL_IDS, IdRange

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class AcceptedCalls:
    """Logs accepted calls: one by itself with its ids, those that shared a commit by number."""

    def __init__(self) -> None:
        self._calls: list[tuple[Publishable, str | None, bool]] = []

    def add(self, event: Publishable, hook: str | None, *, is_duplicate: bool) -> None:
        """Log this call soon, together with those that are answered in the same moment."""
        self._calls.append((event, hook, is_duplicate))
        if len(self._calls) == 1:
            # Calls that shared its commit resume in this turn of the event loop and add themselves.
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        calls, self._calls = self._calls, []
        if len(calls) > 1:
            duplicates = sum(is_duplicate for _, _, is_duplicate in calls)
            # This is the context of the first call, whose trace is not that of all.
            Context().run(_log.info, "webhook_accepted", calls=len(calls), duplicates=duplicates)
            return
        for event, hook, is_duplicate in calls:
            _log.info(
                "webhook_accepted",
                event_id=str(event.id),
                identity_id=str(event.subject),
                hook=hook,
                duplicate=is_duplicate,
            )


_ACCEPTED: Final = JSONResponse({})


class KratosIdentitySyncHandler(KratosWebHookHandler):
    """Publishes KratosIdentityUpdated for the body `{"identity": …}`, and then answers 200.

    The answer is `{}`, for duplicates too: no kind of hook fails on this body. 422 says in Kratos'
    form why a body is no identity. An empty body means that Kratos' template failed, and is
    published as KratosTemplateFailed. While the ledger is unavailable, a call waits. A call about
    an identity of another deployment is answered 503: Kratos sends it again, twice.
    """

    def __init__(
        self,
        config: KratosWebHookHandlerConfig,
        bus: EventBus,
        new_id: Callable[[], UUID],
        now: Callable[[], datetime],
        *,
        max_calls: int = 6_000,
        max_bytes: int = 33_554_432,
        max_wait: timedelta = timedelta(seconds=25),
        on_accepted: Callable[[str | None], None] = lambda _: None,
        ids: IdRange = ALL_IDS,
    ) -> None:
        """Let `max_calls` calls, with `max_bytes` of bodies, wait for an unavailable ledger.

        They wait up to `max_wait`; Kratos gives a call 30 s. `on_accepted` is called with the
        hook's label for each accepted call. This deployment holds the identities of `ids`.
        """
        super().__init__(config)
        self._publisher = RetryingPublisher(
            bus, max_calls=max_calls, max_bytes=max_bytes, max_wait=max_wait
        )
        self._accepted = AcceptedCalls()
        self._on_accepted = on_accepted
        self._ids = ids
        self._new_id = new_id
        self._now = now

    async def handle_core(self, request: Request, body: bytes) -> Response:
        headers = first_headers(request)
        hook = hook_label(headers)
        event: Publishable
        if body:
            event = await self.read(self._event_of, body)
            if event.subject not in self._ids:
                return self._misrouted(request, event.subject, hook)
        else:
            event = KratosTemplateFailed(self._new_id(), self._now(), hook or NO_LABEL)
            _log.warning("webhook_template_failed", hook=hook)
        provenance = Provenance(
            source="webhook",
            dedupe_key=_dedupe_key(trigger_id(headers), body),
            traceparent=traceparent(headers),
            hook=hook,
        )
        recorded = await self._publisher.publish(event, provenance, len(body))
        if not recorded:
            note_result(request, "duplicate")
        self._accepted.add(event, hook, is_duplicate=not recorded)
        self._on_accepted(hook)
        return _ACCEPTED

    def _misrouted(self, request: Request, identity_id: UUID, hook: str | None) -> Response:
        _log.warning("webhook_misrouted", identity_id=str(identity_id), hook=hook)
        note_result(request, "misrouted")
        return status_response(HTTPStatus.SERVICE_UNAVAILABLE, str(HeldElsewhere(self._ids)))

    @property
    def held_calls(self) -> int:
        """How many calls wait because the ledger is unavailable."""
        return self._publisher.held_calls

    def abort_waiting(self) -> None:
        """Answer 503 to every call that waits for the ledger, now and from now on."""
        self._publisher.abort_waiting()

    def _event_of(self, body: bytes) -> Publishable:
        """The event of a body; it keeps the body's own text where that may be recorded as it is."""
        subject, identity = read_identity(body)
        if identity is not None:
            return KratosIdentityUpdated(self._new_id(), self._now(), identity)
        return UnreadEvent(KratosIdentityUpdated, self._new_id(), self._now(), subject, body)


def _dedupe_key(trigger: str | None, body: bytes) -> str | None:
    """A key that all attempts of one call share, and no other call: the body has the subject.

    A trigger id alone would let anyone who knows one keep another call from being recorded.
    """
    if trigger is None:
        return None
    return f"webhook:{trigger}:{blake2b(body, digest_size=16).hexdigest()}"


class KratosIdentityHintHandler(KratosIdentitySyncHandler):
    """Publishes KratosIdentityHinted with the id in the body, and no other part of the identity.

    Bodies are read as strictly, and answers are the same.
    """

    def _event_of(self, body: bytes) -> Publishable:
        subject, _ = read_identity(body)
        return KratosIdentityHinted(self._new_id(), self._now(), subject)
