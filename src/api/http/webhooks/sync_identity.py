"""`POST /kratos/sync-identity`: Kratos says what an identity is now, and we record that it did."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kratos_sync.api.http.webhooks.handler import KratosWebHookHandler, KratosWebHookHandlerConfig
from kratos_sync.api.http.webhooks.identity_body import read_identity, refuse, subject_of
from kratos_sync.api.http.webhooks.publisher import RetryingPublisher
from kratos_sync.api.http.webhooks.rejections import (
    first_headers,
    hook_label,
    traceparent,
    trigger_id,
)
from kratos_sync.application.ports.event_bus import EventBus, Provenance, Publishable, UnreadEvent
from kratos_sync.application.ports.hook_log import NO_LABEL
from kratos_sync.domain.events import (
    KratosIdentityHinted,
    KratosIdentityUpdated,
    KratosTemplateFailed,
)
from kratos_sync.domain.fields import InvalidField
from kratos_sync.domain.identity import Identity

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class AcceptedCalls:
    """Logs accepted calls: one by itself with its ids, those that shared a commit by number."""

    def __init__(self) -> None:
        self._calls: list[tuple[Publishable, str | None, bool]] = []

    def add(self, event: Publishable, hook: str | None, *, is_duplicate: bool) -> None:
        """Log this call soon, together with those that are answered in the same moment."""
        self._calls.append((event, hook, is_duplicate))
        if len(self._calls) == 1:
            # Whoever shared its commit is woken in this turn of the event loop, and adds itself.
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        calls, self._calls = self._calls, []
        if len(calls) > 1:
            duplicates = sum(is_duplicate for _, _, is_duplicate in calls)
            _log.info("webhook_accepted", calls=len(calls), duplicates=duplicates)
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
    """Publishes KratosIdentityUpdated for the body `{"identity": …}`, and answers 200 after that.

    The answer is `{}`, also to what was recorded before: a hook that parses breaks on no body.
    422 says in Kratos' form why a body is no identity. An empty body is Kratos' own failure, and
    published as KratosTemplateFailed. A call waits for a ledger that is away.
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
        patience: timedelta = timedelta(seconds=25),
        hook_heard: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        """Let `max_calls` calls, with `max_bytes` of bodies, wait for a ledger that is away.

        They wait up to `patience`; Kratos itself gives a call 30 s. `hook_heard` is called with the
        hook's label for each call that was accepted.
        """
        super().__init__(config)
        self._publisher = RetryingPublisher(
            bus, max_calls=max_calls, max_bytes=max_bytes, patience=patience
        )
        self._accepted = AcceptedCalls()
        self._hook_heard = hook_heard
        self._new_id = new_id
        self._now = now

    async def handle_core(self, request: Request, body: bytes) -> Response:
        """Record what the body says of an identity."""
        headers = first_headers(request)
        hook = hook_label(headers)
        event: Publishable
        if body:
            try:
                event = await self.read(self._heard, body)
            except InvalidField as error:
                return self.write_error_response(refuse(error, hook))
        else:
            event = KratosTemplateFailed(self._new_id(), self._now(), hook or NO_LABEL)
            _log.warning("webhook_template_failed", hook=hook)
        provenance = Provenance(
            source="webhook",
            dedupe_key=_dedupe_key(trigger_id(headers), body),
            traceparent=traceparent(headers),
        )
        recorded = await self._publisher.publish(event, provenance, len(body))
        self._accepted.add(event, hook, is_duplicate=not recorded)
        self._hook_heard(hook)
        return _ACCEPTED

    def abort_waiting(self) -> None:
        """Answer 503 to whoever waits for the ledger, and from now on to whoever would."""
        self._publisher.abort_waiting()

    def _heard(self, body: bytes) -> Publishable:
        """The event that a body tells of, in the body's own text if that may be kept as it came."""
        subject = subject_of(body)
        if subject is None:
            document, text = read_identity(body)
            identity = Identity.from_kratos(document)
            if text is None:
                return KratosIdentityUpdated(self._new_id(), self._now(), identity)
            subject = identity.id
        return UnreadEvent(KratosIdentityUpdated, self._new_id(), self._now(), subject, body)


def _dedupe_key(trigger: str | None, body: bytes) -> str | None:
    """What the attempts of one call have in common, and no other call: the body has the subject.

    A trigger id alone would let whoever knows one keep another call from being recorded.
    """
    if trigger is None:
        return None
    return f"webhook:{trigger}:{blake2b(body, digest_size=16).hexdigest()}"


class KratosIdentityHintHandler(KratosIdentitySyncHandler):
    """Publishes KratosIdentityHinted with the id in the body, and nothing else of the person.

    The body is read as strictly, and the answers are the same.
    """

    def _heard(self, body: bytes) -> Publishable:
        subject = subject_of(body) or Identity.from_kratos(read_identity(body).identity).id
        return KratosIdentityHinted(self._new_id(), self._now(), subject)
