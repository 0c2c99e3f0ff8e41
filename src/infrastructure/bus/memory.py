"""A broker in the memory of one process, in which a relay and a worker share it.

Dramatiq's StubBroker is for tests: its queues have no limit, each has a delay queue beside it, and
it keeps what failed for ever (dramatiq 2.2, brokers/stub.py).
"""

import json
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any, Final
from uuid import UUID

import dramatiq
from dramatiq.broker import Consumer, MessageProxy

from kratos_sync.infrastructure.bus import wire_format
from kratos_sync.infrastructure.bus.broker import (
    BrokerOutOfReach,
    BrokerUnavailable,
    Load,
    Share,
    bounded,
)

MOST_MESSAGES: Final = 10_000
"""More than a relay ever leaves in a queue."""
MOST_BYTES: Final = 1 << 20
ROUTE: Final = "/broker"
"""Where the process that has the broker serves `waiting` to others, as JSON."""


@dataclass(eq=False, slots=True)
class _Queue:
    changed: threading.Condition
    waiting: deque[MessageProxy] = field(default_factory=deque)
    in_flight: set[str] = field(default_factory=set)
    is_new: bool = True
    """Whether it has not had a message yet."""


class MemoryBroker(dramatiq.Broker):
    """A PointerBroker in memory; what it holds ends with the process."""

    def __init__(self) -> None:
        # No middleware: retries live in the ledger, and the pipeline runs inside the actor.
        super().__init__(middleware=[])
        self._lock = threading.Lock()
        self._held: dict[str, _Queue] = {}
        self._is_closed = False
        self._predecessor_died = False

    def work_as(self, name: str, *, predecessor_died: bool) -> None:  # noqa: ARG002
        """If a process before this one died, a queue lacks its messages until it has had others.

        Later on, what is under lease may also be in the memory of another process, which works.
        """
        self._predecessor_died = predecessor_died

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> "MemoryConsumer":
        """Make a consumer that waits for messages, up to the timeout (milliseconds)."""
        queue = self._queue(queue_name)
        share = Share(queue_name, bounded(prefetch), queue.in_flight)
        return MemoryConsumer(queue, share, timeout / 1000)

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue without the delay queue beside it: due times live in the ledger."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = self._queue(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue_many(self, messages: Sequence[dramatiq.Message[Any]]) -> None:
        """Enqueue messages, all or none."""
        queues = {name: self._queue(name) for name in {each.queue_name for each in messages}}
        more = Counter(message.queue_name for message in messages)
        with self._lock:
            self._require_open()
            if any(len(queues[name].waiting) + more[name] > MOST_MESSAGES for name in more):
                raise BrokerUnavailable("QueueFull")
            for message in messages:
                queues[message.queue_name].waiting.append(MessageProxy(message))
            for queue in queues.values():
                queue.is_new = False
                queue.changed.notify_all()

    def load(self, queue_name: str) -> Load:
        queue = self._queue(queue_name)
        with self._lock:
            is_lacking = self._predecessor_died and queue.is_new
            return Load(len(queue.waiting), 0 if is_lacking else None)

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:  # noqa: ARG002
        self.ping()
        return {name: len(self._queue(name).waiting) for name in queue_names}

    def ping(self) -> None:
        with self._lock:
            self._require_open()

    def close(self) -> None:
        """Accept no more messages."""
        with self._lock:
            self._is_closed = True

    def left(self) -> Mapping[str, Sequence[UUID]]:
        """The events in messages that nobody has begun, by consumer."""
        with self._lock:
            return {
                name: [
                    event_id
                    for message in queue.waiting
                    for event_id in wire_format.read(message.args, message.kwargs).event_ids
                ]
                for name, queue in self._held.items()
                if queue.waiting
            }

    def _queue(self, name: str) -> _Queue:
        with self._lock:
            if name not in self._held:
                self._held[name] = _Queue(threading.Condition(self._lock))
            return self._held[name]

    def _require_open(self) -> None:
        if self._is_closed:
            raise BrokerUnavailable("Closed")


class MemoryConsumer(Consumer):
    """Gives messages as they come, and None after a timeout (seconds).

    Dramatiq calls it from one thread for each queue, and acknowledges from all threads.
    """

    def __init__(self, queue: _Queue, share: Share[str], timeout: float) -> None:
        self._queue, self._share, self._seconds = queue, share, timeout

    def __next__(self) -> MessageProxy | None:
        """Give the next message, or None after the timeout."""
        queue = self._queue
        with queue.changed:
            if not queue.changed.wait_for(self._is_one_due, self._seconds):
                return None
            message = queue.waiting.popleft()
            queue.in_flight.add(message.message_id)
            return message

    def ack(self, message: MessageProxy) -> None:
        """Acknowledge a processed message."""
        with self._queue.changed:
            self._queue.in_flight.discard(message.message_id)
            self._queue.changed.notify_all()

    nack = ack  # the ledger knows what failed, and has the dead letters

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Requeue messages that were taken and not begun, before those that wait."""
        returned = list(messages)
        with self._queue.changed:
            self._queue.in_flight.difference_update(each.message_id for each in returned)
            self._queue.waiting.extendleft(reversed(returned))
            self._queue.changed.notify_all()

    def _is_one_due(self) -> bool:
        return bool(self._queue.waiting and self._share.room)


class MemoryElsewhere:
    """What another process than the one that has it can know of a memory broker."""

    def __init__(self, host: str, port: int | None) -> None:
        """The process serves ROUTE there; without a port it cannot be asked."""
        self._host, self._port = host, port

    def waiting(self, queue_names: Sequence[str], seconds: float) -> Mapping[str, int]:
        """Ask for the messages that no worker has fetched. Also raises BrokerOutOfReach."""
        if self._port is None:
            raise BrokerOutOfReach("it is in the memory of another process")
        connection = HTTPConnection(self._host, self._port, timeout=seconds)
        try:
            connection.request("GET", ROUTE)
            answer = json.loads(connection.getresponse().read(MOST_BYTES))
            return {name: int(answer.get(name, 0)) for name in queue_names}
        except (OSError, HTTPException, ValueError, TypeError, AttributeError) as error:
            raise BrokerUnavailable(type(error).__name__) from None
        finally:
            connection.close()

    def close(self) -> None:
        """Nothing to close."""
