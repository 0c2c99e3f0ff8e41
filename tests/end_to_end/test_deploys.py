"""Old code and new code, side by side."""

import json
import sys
from pathlib import Path

import redis

from tests.end_to_end import older_release
from tests.end_to_end.service import Service
from tests.infrastructure.bus.peeking import namespace_of
from tests.recorded import two_hundred_lives
from tests.waiting import until

CALLS = two_hundred_lives().calls[:20]
PEOPLE = {call.person for call in CALLS}

# As release 0.1.0 put it into Redis, but for the ids.
MESSAGE = (
    '{"queue_name":"SyncKratosIdentity","actor_name":"deliver","args":[],"kwargs":{"version":1,'
    '"consumer":"SyncKratosIdentity","event_ids":%s},"options":{"redis_message_id":'
    '"6f5ee1b6-0000-4000-8000-000000000001"},"message_id":"6f5ee1b6-0000-4000-8000-000000000001",'
    '"message_timestamp":1790000000000}'
)


def test_an_event_that_old_code_does_not_know_waits_for_new_code(service: Service) -> None:
    service.stop("worker")
    older = [sys.executable, str(Path(older_release.__file__))]
    service.start("older", "worker", program=older)
    assert service.post(CALLS) == [200] * 20
    unknown = "last_error = 'UnknownEvent: kratos_identity.updated'"
    until(lambda: service.count("deliveries", unknown) == 20)
    assert service.people() == {}

    service.start("worker", "worker")
    service.settle()

    service.stop("older")
    assert service.people().keys() == PEOPLE
    assert service.count("attempts", "outcome <> 'succeeded' OR number <> 1") == 0


def test_a_message_of_an_older_release_is_read(service: Service) -> None:
    service.stop("relay")
    assert service.post(CALLS) == [200] * 20
    rows = service.ask("UPDATE kratos_sync.deliveries SET leased = true RETURNING event_id::text")

    with redis.Redis.from_url(service.valkey.url) as client:
        message = MESSAGE % json.dumps([row["event_id"] for row in rows])
        queue = f"{namespace_of(service.database_url)}:SyncKratosIdentity"
        client.hset(f"{queue}.msgs", json.loads(message)["message_id"], message)
        client.rpush(queue, json.loads(message)["message_id"])

    until(lambda: service.people().keys() == PEOPLE)
