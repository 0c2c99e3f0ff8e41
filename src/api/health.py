"""`GET /health/live` and `GET /health/ready`: may this process go on, and may it be sent calls."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from application.ports.readiness import ReadinessCheck

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Health:
    """Answers those who start, stop and balance processes; tells them names, never details.

    Check what taking webhooks needs and no more: that is the database. The broker may be away.
    """

    def __init__(
        self, checks: Sequence[ReadinessCheck], timeout: timedelta = timedelta(seconds=2)
    ) -> None:
        """A check that does not return within `timeout` counts as down."""
        self._checks = checks
        self._timeout = timeout
        self._running: dict[int, asyncio.Task[bool]] = {}

    async def live(self, request: Request) -> Response:  # noqa: ARG002
        """200 as long as the process can answer."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:  # noqa: ARG002
        """200 when every check succeeds, 503 with the names of those that do not."""
        runs = [self._run(index) for index in range(len(self._checks))]
        if runs:
            await asyncio.wait(runs, timeout=self._timeout.total_seconds())
        down = [
            check.name
            for check, run in zip(self._checks, runs, strict=True)
            if not (run.done() and run.result())
        ]
        if not down:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "unavailable", "down": down}, HTTPStatus.SERVICE_UNAVAILABLE)

    def _run(self, index: int) -> asyncio.Task[bool]:
        """The run under way, or a new one: a check that hangs takes one thread, not many."""
        run = self._running.get(index)
        if run is None or run.done():
            run = self._running[index] = asyncio.create_task(_is_there(self._checks[index]))
        return run


async def _is_there(check: ReadinessCheck) -> bool:
    try:
        await asyncio.to_thread(check.check)
    except Exception as error:  # noqa: BLE001 - whatever a check raises means: not there
        _log.warning("not_ready", check=check.name, error=type(error).__qualname__)
        return False
    return True
