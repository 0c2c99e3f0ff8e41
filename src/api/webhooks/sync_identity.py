"""`POST /kratos/sync-identity`: Kratos says what an identity is now, and we record that it did."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.webhooks.handler import KratosWebHookHandler, KratosWebHookHandlerConfig
from api.webhooks.headers import hook_label, traceparent, trigger_id
from api.webhooks.identity_body import read_identity, refuse
from api.webhooks.publisher import PatientPublisher
from application.ports.event_bus import EventBus, Provenance
from domain.events import KratosIdentityUpdated
from domain.fields import InvalidField
from domain.identity import Identity

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class KratosIdentitySyncHandler(KratosWebHookHandler):
    """Publishes KratosIdentityUpdated for the body `{"identity": …}`, and answers 200 after that.

    The answer is `{}`, also to what was recorded before: a hook that parses breaks on no body.
    422 says in Kratos' form why a body is no identity. A call waits for a ledger that is away.
    """

    def __init__(
        self,
        config: KratosWebHookHandlerConfig,
        bus: EventBus,
        new_id: Callable[[], UUID],
        now: Callable[[], datetime],
        *,
        concurrency: int = 10,
        max_waiting: int = 200,
        patience: timedelta = timedelta(seconds=25),
    ) -> None:
        """Publish on up to `concurrency` threads, as many as the bus has connections.

        `max_waiting` calls may wait, for a thread or for a ledger that is away, up to `patience`;
        Kratos itself gives a call 30 s.
        """
        super().__init__(config)
        self._publisher = PatientPublisher(
            bus, concurrency=concurrency, max_waiting=max_waiting, patience=patience
        )
        self._new_id = new_id
        self._now = now

    async def handle_core(self, request: Request, body: bytes) -> Response:
        """Record what the body says of an identity."""
        hook = hook_label(request.headers)
        try:
            identity = Identity.from_kratos(read_identity(body))
        except InvalidField as error:
            return self.write_error_response(refuse(error, hook))
        trigger = trigger_id(request.headers)
        provenance = Provenance(
            source="webhook",
            dedupe_key=None if trigger is None else f"webhook:{trigger}",
            traceparent=traceparent(request.headers),
        )
        event = KratosIdentityUpdated(self._new_id(), self._now(), identity)
        recorded = await self._publisher.publish(event, provenance)
        _log.info(
            "webhook_accepted",
            event_id=str(event.id),
            identity_id=str(identity.id),
            hook=hook,
            duplicate=not recorded,
        )
        return JSONResponse({})
