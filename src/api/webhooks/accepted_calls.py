"""What the log says of calls that were accepted."""

import asyncio
from typing import Final

import structlog

from application.ports.event_bus import Publishable

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
