"""Wake-ups of waiting workers over Redis PUBLISH: hints, of which a lost one costs one poll."""

import threading
from collections import defaultdict

import redis
import structlog

LISTEN_SECONDS = 1.0

log = structlog.get_logger()


class Wakeups:
    """Tells the waiting consumers of this process that something is on their queue."""

    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._client = client
        self._channel = channel
        self._events: dict[str, threading.Event] = defaultdict(threading.Event)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def publish(self, client: redis.Redis, queue_name: str) -> None:
        """Wake whoever waits for that queue, in any process."""
        client.publish(self._channel, queue_name)

    def event(self, queue_name: str) -> threading.Event:
        """Give what is set when the queue has something; the first call begins to listen."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="wake-ups", daemon=True)
                self._thread.start()
            return self._events[queue_name]

    def stop(self) -> None:
        """Stop listening."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * LISTEN_SECONDS)

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._client.pubsub(  # type: ignore[no-untyped-call]  # redis has no types here
                    ignore_subscribe_messages=True
                ) as subscription:
                    subscription.subscribe(self._channel)
                    while not self._stopped.is_set():
                        message = subscription.get_message(timeout=LISTEN_SECONDS)
                        if message is not None:
                            self._wake(message["data"])
            except redis.RedisError as error:
                log.warning("wake_ups_interrupted", error=type(error).__name__)
                self._stopped.wait(LISTEN_SECONDS)

    def _wake(self, queue_name: bytes) -> None:
        event = self._events.get(queue_name.decode(errors="replace"))
        if event is not None:
            event.set()
