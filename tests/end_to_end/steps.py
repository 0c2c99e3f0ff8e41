"""What happens to the service in one run: people, and everything that can go wrong."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psutil

from tests.end_to_end.flow import Flow
from tests.end_to_end.planted import GARBAGE, PEOPLE, SECRETS, SENT
from tests.infrastructure.bus.peeking import namespace_of
from tests.recorded import thirteen_calls
from tests.waiting import until

SYNC, PARSE = "/kratos/sync-identity", "/kratos/parse-identity"
KNOWN = thirteen_calls().calls[0]
SERVERS_LOG = {
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_min_duration_statement": "0",
}


def body_about(person: str, **fields: object) -> bytes:
    traits = {
        "email": PEOPLE["an e-mail address"],
        "name": {"first": PEOPLE["a name"]},
        "phone": PEOPLE["a phone number"],
        "odd": f"\x00{PEOPLE['a trait of odd characters']}\ud83d",
        PEOPLE["a trait's key"] + "\x00": True,
    }
    # Anew: the recording is moved to the present, and after ten minutes nobody has registered.
    known = thirteen_calls().calls[0].identity
    for address in known["verifiable_addresses"]:
        address["value"] = PEOPLE["an e-mail address"]
    identity = {
        **known,
        "id": person,
        "traits": traits,
        "metadata_public": {"note": PEOPLE["public metadata"]},
        "external_id": PEOPLE["an external id"],
        "mood": PEOPLE["an unknown field"],
        **fields,
    }
    return json.dumps({"identity": identity}).encode()


def refused_calls() -> Iterator[tuple[bytes, dict[str, str], int]]:
    quoted = json.dumps(SENT["a refused body"]).encode()
    raw = SENT["a refused body"].encode()
    wrong = SENT["a wrong key"]
    yield body_about(str(uuid4())), {"X_Api_Key": wrong}, 403
    yield body_about(str(uuid4())), {"X_Api_Key": SECRETS["the new key"] + wrong}, 403
    yield body_about(str(uuid4())), {"X_Api_Key": SECRETS["the old key"][:-1]}, 403
    yield raw, {"Content_Type": f"text/{SENT['a header']}"}, 415
    yield b'{"identity": {"traits": ' + quoted, {}, 400
    yield b'"' + raw + b'\xff"', {}, 400
    yield b"[" * 1_000 + quoted, {}, 400
    yield b'{"identity": ' + quoted + b"}", {}, 422
    yield b'{"identity": {"id": ' + quoted + b"}}", {}, 422
    yield body_about(str(uuid4()), updated_at=SENT["a refused body"]), {}, 422
    yield body_about(str(uuid4()), verifiable_addresses=[SENT["a refused body"]]), {}, 422
    yield b'{"identity": ' + quoted * 60_000, {}, 413


def people_come(flow: Flow) -> None:
    flow.statuses.clear()
    for key in ("the new key", "the old key"):
        person = str(uuid4())
        headers = {
            "Ory_Webhook_Trigger_Id": SENT["a header"],
            "traceparent": SENT["a header"],
            "Cookie": SENT["a header"],
            "User_Agent": SENT["a header"],
            "X_Api_Key": SECRETS[key],
        }
        query = f"?api_key={SENT['a query']}&key={SECRETS[key]}"
        assert flow.post(SYNC + query, body_about(person), **headers) == 200
        until(lambda person=person: flow.count("kratos_identities WHERE id = %s", person) == 1)
    gave_up = "attempts WHERE consumer = 'QuotePerson' AND outcome = 'gave_up'"
    until(lambda: flow.count(gave_up) == 2)


def calls_are_refused(flow: Flow) -> None:
    for body, headers, status in refused_calls():
        assert flow.post(SYNC, body, **headers) == status
        # Of an identity that is not stored yet less is asked; then our own endpoint fails.
        assert flow.post(PARSE, body, **headers) in {status, 422}
    assert flow.post(PARSE, body_about(str(uuid4()))) == 422
    headers = {"X-Api-Key": SECRETS["the new key"], "Cookie": SENT["a header"]}
    path = f"/{SENT['a path']}?key={SENT['a query']}"
    assert flow.call("GET", "/health/live", headers) == 500
    assert flow.call("GET", path, headers) == 404
    assert flow.call("DELETE", SYNC, headers) == 405


def garbage_comes(flow: Flow) -> None:
    garbage = GARBAGE["garbage on the broker"]
    message = {
        "queue_name": "SyncKratosIdentity",
        "actor_name": "deliver",
        "args": [garbage],
        "kwargs": {},
        "options": {},
        "message_id": "",
        "message_timestamp": 1,
    }
    arguments = [
        {"note": garbage},
        {"version": garbage},
        {"version": 1, "consumer": garbage, "event_ids": [str(uuid4())]},
        {"version": 1, "consumer": "SyncKratosIdentity", "event_ids": [garbage]},
    ]
    contents = [json.dumps({**message, "args": [], "kwargs": each}) for each in arguments]
    contents += [json.dumps(message), json.dumps({**message, "actor_name": garbage}), garbage]
    with flow.valkey.client() as client:
        queue = f"{namespace_of(flow.database_url)}:SyncKratosIdentity"
        for content in contents:
            number = str(uuid4())
            with_id = content.replace(
                '"options": {}', f'"options": {{"redis_message_id": "{number}"}}'
            )
            client.hset(
                f"{queue}.msgs",
                number,
                with_id.replace('"message_id": ""', f'"message_id": "{number}"'),
            )
            client.rpush(queue, number)
        until(lambda: client.hlen(f"{queue}.msgs") == 0)


def the_broker_refuses_and_goes(flow: Flow) -> None:
    with flow.valkey.wanting(SECRETS["the broker's other password"]):
        assert flow.post(SYNC, body_about(str(uuid4()))) == 200
        flow.run("status")
    flow.settle()
    with flow.valkey.away():
        assert flow.post(SYNC, body_about(str(uuid4()))) == 200
        flow.run("status", "--json")
    flow.settle()


def postgres_goes(flow: Flow) -> None:
    # As docs/operating.md has it; every connection made from here on.
    for name, value in SERVERS_LOG.items():
        flow.postgres.execute(f"ALTER DATABASE {flow.database} SET {name} = {value}")
    body = body_about(str(uuid4()), external_id=SENT["what was said meanwhile"])
    with ThreadPoolExecutor(1) as other:
        with flow.postgres.away():
            call = other.submit(flow.post, SYNC, body)
            flow.run("status", code=1)
        assert call.result(60) == 200
    flow.settle()


def the_ledger_has_failing_events(flow: Flow) -> None:
    text = SENT["a failed event"]
    for payload in (
        {"identity": {"id": KNOWN.person, "traits": {"email": f"{text}\x00"}}},
        {"identity": text},
        {"identity": {"id": text}},
    ):
        event = str(uuid4())
        flow.ask(
            "WITH e AS (INSERT INTO kratos_sync.events"
            " (id, name, subject, occurred_at, payload, source)"
            " VALUES (%s, 'kratos_identity.updated', %s, now(), %s, 'webhook') RETURNING *)"
            " INSERT INTO kratos_sync.deliveries (event_id, consumer, subject)"
            " SELECT id, 'SyncKratosIdentity', subject FROM e",
            event,
            KNOWN.person,
            json.dumps(payload),
        )
        until(lambda event=event: flow.count("attempts WHERE event_id = %s", event))


def the_worker_crashes(flow: Flow) -> None:
    supervisor = psutil.Process(flow.processes.pid_of("worker"))
    (child,) = supervisor.children()
    child.send_signal(signal.SIGABRT)
    until(lambda: [each for each in supervisor.children() if each != child])
    assert flow.post(SYNC, body_about(str(uuid4()))) == 200
    flow.settle()


def people_are_looked_at(flow: Flow) -> None:
    ((person,),) = flow.ask("SELECT id FROM kratos_sync.kratos_identities LIMIT 1")
    for look in (["status"], ["history", str(person)], ["purge"]):
        flow.run(*look)
        if flow.level == "DEBUG":
            flow.run(*look, "--json")
    flow.run("replay", "--consumer", "SyncKratosIdentity", "--since", "1h", "--yes")


STEPS = (
    people_come,
    calls_are_refused,
    garbage_comes,
    Flow.look_around,
    the_broker_refuses_and_goes,
    postgres_goes,
    the_ledger_has_failing_events,
    the_worker_crashes,
    people_are_looked_at,
    Flow.look_around,
)
