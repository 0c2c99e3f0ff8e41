"""Whether a process works (it is live), and whether it is of use now (it is ready)."""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final

import structlog

from kratos_sync.infrastructure.observability.http_server import Response, Route
from kratos_sync.infrastructure.observability.observer import Observer
from kratos_sync.infrastructure.observability.service_manager import (
    READY,
    STOPPING,
    WATCHDOG,
    ServiceManager,
)

LONGEST_TURN_SECONDS: Final = 120.0
"""Longer than a turn of the process' loop, whose statements and calls all end by themselves."""
LOOK_SECONDS: Final = 1.0
JSON: Final = "application/json"

log = structlog.get_logger()


class Health:
    """The health of one process; who asks is answered at once.

    Until it is `started`, and once it is `stopping`, it is live and not ready. In between it is
    live while its loops turn and its threads are alive, and ready while also its database and its
    broker can be used.
    """

    def __init__(
        self,
        process: str,
        observer: Observer,
        service_manager: ServiceManager | None = None,
        loops: Mapping[str, float] | None = None,
    ) -> None:
        """``process`` is its name, such as ``relay``; the observer knows its loops and the rest.

        ``loops`` are those that turn, with the most seconds between two turns; by default one that
        has the process' name.
        """
        self.process = process
        self._observer = observer
        self._service_manager = service_manager or ServiceManager({})
        self._loops = {process: LONGEST_TURN_SECONDS} if loops is None else loops
        self._threads: list[Callable[[], Iterable[threading.Thread]]] = []
        self._state = "is starting"
        self._ended = threading.Event()

    def watch_threads(self, threads: Callable[[], Iterable[threading.Thread]]) -> None:
        """Watch threads, none of which ends before the process is stopping."""
        self._threads.append(threads)

    def started(self) -> None:
        """Say that the process works from now on, and begin to watch it."""
        for loop in self._loops:
            self._observer.turned(loop)
        self._state = ""
        self._service_manager.send(READY)
        threading.Thread(target=self._watch, name="health", daemon=True).start()

    def stopping(self, *, is_replaced: bool = False) -> None:
        """Say that it stops. If another process replaces it, the service goes on."""
        is_news, self._state = not self._ended.is_set(), "is stopping"
        self._ended.set()
        if is_news and not is_replaced:
            self._service_manager.send(STOPPING)

    @property
    def routes(self) -> Mapping[str, Route]:
        """What is served about it."""
        return {"/health/live": self.live, "/health/ready": self.ready}

    def live(self) -> Response:
        """200 while it works, else 503 with what is wrong."""
        return self._answer(self.what_hangs())

    def ready(self) -> Response:
        """200 while it is of use, else 503 with what is missing and why."""
        if self._state:
            return self._answer({"process": self._state})
        away = {
            name: dependency.problem
            for name, dependency in list(self._observer.dependencies.items())
            if not dependency.is_up
        }
        return self._answer({**self.what_hangs(), **away})

    def what_hangs(self) -> dict[str, str]:
        """What keeps it from being live, each with the reason; empty while it works."""
        if self._state:
            return {}
        ages = {loop: self._observer.age_of(loop) for loop in self._loops}
        hanging = {
            "loop"
            if loop == self.process
            else f"loop of the {loop}": f"has not turned for {age:.0f} s"
            for loop, age in ages.items()
            if age > self._loops[loop]
        }
        watched = [thread for threads in self._threads for thread in threads()]
        if ended := [thread.name for thread in watched if not thread.is_alive()]:
            hanging["threads"] = f"{len(ended)} of {len(watched)} ended ({', '.join(ended)})"
        return hanging

    def _answer(self, problems: Mapping[str, str]) -> Response:
        document: dict[str, object] = {"status": "ok", "process": self.process}
        if problems:
            document |= {"status": "unavailable", "down": [*problems], "reasons": {**problems}}
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        return Response(json.dumps(document).encode(), JSON, status)

    def _watch(self) -> None:
        """Log when it hangs, and feed the service manager's watchdog while it does not."""
        watchdog = self._service_manager.watchdog_seconds
        pause = LOOK_SECONDS if watchdog is None else min(LOOK_SECONDS, watchdog / 4)
        known: dict[str, str] = {}
        while not self._ended.wait(pause):
            hanging = self.what_hangs()
            if hanging.keys() != known.keys():
                log.error("not_live", **hanging) if hanging else log.info("live_again")
            known = hanging
            if watchdog is not None and not hanging:
                self._service_manager.send(WATCHDOG)
