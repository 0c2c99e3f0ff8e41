"""What is answered 200 is recorded, and is stored at the first attempt, whatever it says."""

import json
import os
from collections import Counter
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kratos_sync.domain.identity import ADDRESSES, PARTS
from kratos_sync.domain.kratos_identity import COLUMNS
from tests.end_to_end.service import Service
from tests.end_to_end.wire import SYNC
from tests.waiting import until

PEOPLE = [str(uuid4()) for _ in range(3)]
CALLS_AT_ONCE = 12
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
TIMES = [name for name in PARTS if name.endswith("_at")]

numbers = (
    st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2**53 + 1, 2**64, 10**4299, 1e308, 5e-324, -0.0, 1e23])
)
texts = st.text(st.characters(codec=None), max_size=8) | st.sampled_from(
    ["\0", "\ud800", "\udc00\ud800", "\uffff", "\U0010ffff", "\x7f", "\\u0000", '"', "x" * 300]
)
any_json = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
times = (
    st.builds(
        lambda moment, offset: moment.isoformat(timespec="seconds") + offset,
        st.datetimes(),
        st.sampled_from(["Z", "+14:00", "-23:59", ".123456789Z"]),
    )
    | st.sampled_from(
        ["0001-01-01T00:00:00Z", "0001-01-01T00:00:01Z", "9999-12-31T23:59:59.9999999Z"]
    )
    | st.integers(0, 59).map("2026-11-23T07:20:{:02}Z".format)
)
uuids = st.uuids().map(str) | st.sampled_from([str(UUID(int=0)), PEOPLE[0].upper()])
addresses = st.lists(
    st.fixed_dictionaries(
        {"via": texts | st.just("email"), "value": texts},
        optional={
            "id": uuids | st.none(),
            "verified": st.booleans() | st.none(),
            "status": texts | st.sampled_from(["pending", "sent", "completed"]),
            **dict.fromkeys(["verified_at", "created_at", "updated_at"], times | st.none()),
            "break_glass_for_organization": any_json,
            "order": any_json,
        },
    ),
    max_size=4,
)
names_of_ours = st.sampled_from([*COLUMNS, "unknown", "document", "credentials", "identity"])
identities = st.builds(
    lambda known, unknown: {**unknown, **known},
    st.fixed_dictionaries(
        {"id": st.sampled_from(PEOPLE) | uuids},
        optional={
            **dict.fromkeys(PARTS, texts | st.none()),
            **dict.fromkeys(TIMES, times | st.none()),
            "updated_at": times | st.none(),
            **dict.fromkeys(("traits", "metadata_public", "metadata_admin"), any_json),
            **dict.fromkeys(ADDRESSES, addresses | st.none()),
            "organization_id": uuids | st.none(),
        },
    ),
    st.dictionaries(texts | names_of_ours, any_json, max_size=2),
)
odd_identities = st.builds(
    lambda identity, name, value: {**identity, name: value},
    identities,
    st.sampled_from([*PARTS, "id", "updated_at"]),
    any_json,
)
bodies = st.lists(identities | odd_identities, min_size=1, max_size=CALLS_AT_ONCE)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 60,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(bodies, st.booleans())
def post_and_consume(service: Service, identities: list[Any], is_ascii: bool) -> None:
    texts = [json.dumps({"identity": each}, ensure_ascii=is_ascii) for each in identities]
    before = recorded(service)
    answers = Counter(send(service, text.encode("utf-8", "surrogatepass")) for text in texts)
    TALLY.update(answers)
    assert answers.keys() <= {200, 400, 422}
    assert recorded(service) == before + answers[200]
    try:
        until(lambda: not has_pending(service))
        outcomes = service.ask("SELECT DISTINCT outcome, error FROM kratos_sync.attempts")
        assert [row["outcome"] for row in outcomes] in ([], ["succeeded"]), outcomes
    except BaseException:
        service.forget(whatever_is_pending=True)
        raise


TALLY = Counter()


def send(service: Service, body: bytes) -> int:
    headers = {"Content-Type": "application/json"}
    return service._http.post(SYNC, content=body, headers=headers).status_code


def recorded(service: Service) -> int:
    (row,) = service.ask(
        "SELECT count(*) AS events FROM kratos_sync.events WHERE name = 'kratos_identity.updated'"
    )
    count: int = row["events"]
    return count


def has_pending(service: Service) -> bool:
    """Whether something is still to be attempted; what has failed once is not waited for."""
    return service.count("deliveries", "attempts = 0") > 0


def test_whatever_is_accepted_is_stored_at_the_first_attempt(service: Service) -> None:
    post_and_consume(service)
    assert service.people()
    print(TALLY)


def test_a_large_identity_is_stored_at_the_first_attempt(service: Service) -> None:
    addresses = [{"via": "email", "value": f"{n}@example.org"} for n in range(9_000)]
    proved = [{**address, "verified": True} for address in addresses]
    for some in (addresses, proved[:5_000]):
        identity = {
            "id": PEOPLE[0],
            "verifiable_addresses": some,
            "updated_at": "2026-11-23T07:20:12Z",
        }
        assert send(service, json.dumps({"identity": identity}).encode()) == 200
    service.settle()
    attempts = service.ask("SELECT DISTINCT outcome FROM kratos_sync.attempts")
    assert [row["outcome"] for row in attempts] == ["succeeded"]
