"""Waking the relay when something is due, by NOTIFY in a transaction of its own.

NOTIFY inside the recording transaction would take a lock that is global to the server until after
its commit; sent by itself and debounced, it is a hint that costs nobody a wait. Behind a pooler in
transaction mode LISTEN hears nothing: then the relay looks once a second.
"""

import threading

import structlog
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

CHANNEL = "kratos_sync_due"
# Calls that come closer together than this share one NOTIFY.
DEBOUNCE_SECONDS = 0.002

log = structlog.get_logger()


class RelayWakeUp:
    """Sends wake-ups from a thread of its own, so that nobody waits for them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted = False
        self._something = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def __call__(self) -> None:
        """Wake the relay soon; returns at once."""
        self._wanted = True
        self._something.set()
        if self._thread is None:
            self._start()

    def stop(self) -> None:
        """Send what is wanted still, and stop."""
        self._stopped.set()
        self._something.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wake-up", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._something.wait()
            self._something.clear()
            if self._wanted:
                self._wanted = False
                self._notify()
            elif self._stopped.is_set():
                return
            self._stopped.wait(DEBOUNCE_SECONDS)
            if self._stopped.is_set():
                self._something.set()

    def _notify(self) -> None:
        try:
            with self._engine.begin() as connection:
                connection.execute(text(f"NOTIFY {CHANNEL}"))
        except SQLAlchemyError as error:
            log.warning("wake_up_lost", error=type(error).__name__)
