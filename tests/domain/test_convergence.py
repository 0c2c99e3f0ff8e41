"""Whatever the order and however often snapshots arrive, our copy ends the same."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.doubles import rounded
from domain.identity import Identity
from domain.json_values import ABSENT, Json
from domain.kratos_identity import KratosIdentity
from tests.domain.people import ADA, NOON, address, cause, minutes, row_of, written

NUMBERS = (2**53, 2**53 + 1, 2**53 + 2, 10**400, 7, 1.0, True)
VALUES: st.SearchStrategy[Json] = st.sampled_from(
    [None, {}, *({"n": number} for number in NUMBERS), {"n": [2**53 + 1], "name": "Ada"}]
)
TEXTS = st.sampled_from([None, "a", "b"])
TIMES = st.sampled_from([None, *map(written, map(minutes, range(3)))])
ADDRESSES: st.SearchStrategy[Json] = st.lists(
    st.builds(
        address,
        st.sampled_from(["ada@home.org", "ada@work.org"]),
        status=st.sampled_from(["pending", "sent", "lost"]),
        verified_at=st.none() | st.sampled_from([minutes(1), minutes(2)]),
    ),
    max_size=2,
)
FIELDS: dict[str, st.SearchStrategy[Json]] = {
    "updated_at": TIMES,
    "created_at": TIMES,
    "state_changed_at": TIMES,
    "schema_id": TEXTS,
    "state": TEXTS,
    "external_id": TEXTS,
    "traits": VALUES,
    "metadata_public": VALUES,
    "metadata_admin": VALUES,
    "pronouns": VALUES,
    "organization_id": st.sampled_from([None, str(ADA)]),
    "verifiable_addresses": ADDRESSES,
    "recovery_addresses": ADDRESSES,
}
anything = st.fixed_dictionaries({"id": st.just(str(ADA))}, optional=FIELDS)


def row_after(documents: list[dict[str, Json]]) -> KratosIdentity:
    first, *others = map(Identity.from_kratos, documents)
    row = KratosIdentity.seen(first, at=NOON, cause=cause())
    for snapshot in others:
        row.update(snapshot, at=NOON, cause=cause())
    return row


@settings(max_examples=60, deadline=None)
@given(st.lists(anything, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_any_snapshots_end_in_one_row_in_any_order(
    documents: list[dict[str, Json]], random: Random
) -> None:
    shuffled = [*documents, *random.choices(documents, k=2)]
    random.shuffle(shuffled)

    assert row_of(row_after(shuffled)) == row_of(row_after(documents))


@settings(max_examples=50, deadline=None)
@given(st.lists(anything, min_size=1, max_size=5))
def test_hearing_it_all_again_changes_nothing(documents: list[dict[str, Json]]) -> None:
    row = row_after(documents)
    row.mark_stored()
    row.collect_events()

    for each in documents:
        row.update(Identity.from_kratos(each), at=NOON, cause=cause())

    assert (row.changed, row.collect_events()) == (frozenset(), [])


@dataclass(frozen=True)
class Life:
    """Ada in Kratos' own store; each step gives what she is afterwards."""

    clock: int = 0
    updated: int = 0
    changed: int = 0
    state: str = "active"
    traits: dict[str, Json] = field(default_factory=lambda: {"n": 2**53 + 1, "name": {}})
    plan: str | None = None
    external_id: str | None = None
    addresses: tuple[tuple[str, int | None], ...] = (("ada@example.org", None),)

    def after(self, step: str) -> "Life":
        now = self.clock + 1
        verified = tuple((value, now) for value, _ in self.addresses)
        updates: dict[str, Life] = {
            "log in": replace(self, clock=now),
            "verify": replace(self, clock=now, addresses=verified),
            "rename": replace(self.touched(), traits={**self.traits, "name": {"first": now}}),
            "renumber": replace(self.touched(), traits={**self.traits, "n": 2**53 + now}),
            "move": replace(self.touched(), addresses=((f"ada{now}@example.org", None),)),
            "add": replace(
                self.touched(), addresses=(*self.addresses, (f"ada{now}@example.org", None))
            ),
            "promote": replace(self.touched(), plan=f"plan {now}"),
            "number": replace(self.touched(), external_id=None if self.external_id else "crm"),
            "lock": replace(self.touched(), state="inactive", changed=now),
        }
        return updates[step]

    def touched(self) -> "Life":
        return replace(self, clock=self.clock + 1, updated=self.clock + 1)

    def document(self, *, precise: bool = False) -> dict[str, Json]:
        """What the Admin API would say; nanoseconds in the call that made the change."""
        fraction = "123456789" if precise else "123456"
        shape: dict[str, Json] = {
            "id": str(ADA),
            "schema_id": "person",
            "state": self.state,
            "state_changed_at": written(minutes(self.changed))[:-1] + f".{fraction}Z",
            "traits": self.traits,
            "metadata_public": None,
            "metadata_admin": None if self.plan is None else {"plan": self.plan},
            "organization_id": None,
            "created_at": written(NOON),
            "updated_at": written(minutes(self.updated)),
            "verifiable_addresses": [
                address(value, verified_at=None if at is None else minutes(at))
                for value, at in self.addresses
            ],
        }
        return shape if self.external_id is None else {**shape, "external_id": self.external_id}


STEPS = ["log in", "verify", "rename", "renumber", "move", "add", "promote", "number", "lock"]
SENDERS = ["webhook", "precise webhook", "passkey webhook", "admin", "part of a webhook", "nobody"]


def sent(life: Life, sender: str, random: Random) -> dict[str, Json] | None:
    shape = life.document(precise=sender == "precise webhook")
    if sender == "nobody":
        return None
    if sender == "admin":
        return shape
    shape["traits"] = rounded(shape["traits"])
    del shape["metadata_admin"]
    if sender == "passkey webhook":
        del shape["verifiable_addresses"]
    if sender == "part of a webhook":
        for key in random.sample(sorted(shape.keys() - {"id", "updated_at"}), k=4):
            del shape[key]
    return shape


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(SENDERS)), max_size=8),
    st.randoms(use_true_random=False),
)
def test_a_life_as_kratos_tells_it_ends_in_what_kratos_holds(
    story: list[tuple[str, str]], random: Random
) -> None:
    life, calls = Life(), [Life().document()]
    for step, sender in story:
        life = life.after(step)
        if (call := sent(life, sender, random)) is not None:
            calls.append(call)
    calls.append(life.document())
    truth = Identity.from_kratos(life.document())

    rows = []
    for _ in range(3):
        rows.append(row_after(calls))
        calls = [*calls, *random.choices(calls, k=2)]
        random.shuffle(calls)

    assert row_of(rows[0]) == row_of(rows[1]) == row_of(rows[2])
    row = rows[0]
    assert (row.traits, row.metadata_admin) == (truth.traits, truth.metadata_admin)
    assert row.verifiable_addresses == truth.verifiable_addresses
    assert row.state == truth.state
    assert row.external_id == (None if truth.external_id is ABSENT else truth.external_id)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["webhook", "admin", "gone"]), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_deletions_and_signs_of_life_end_in_one_row_in_any_order(
    story: list[str], random: Random
) -> None:
    life = Life()
    last = random.choice(["admin", "gone"])
    moments = list(enumerate([*story, last]))

    def row_in(order: list[tuple[int, str]]) -> dict[str, str]:
        row: KratosIdentity | None = None
        for minute, what in order:
            at = NOON + timedelta(minutes=minute)
            if what == "gone":
                if row is None:
                    row = KratosIdentity.never_seen(ADA, at=at, cause=cause())
                row.gone(at=at, cause=cause())
                continue
            call = sent(life, what, random)
            assert call is not None
            snapshot = Identity.from_kratos(call)
            if row is None:
                row = KratosIdentity.seen(snapshot, at=at, cause=cause())
            row.update(snapshot, at=at, cause=cause())
        assert row is not None
        told = row_of(row)
        if row.deleted_at is not None:
            del told["created_at"], told["updated_at"]
        return told

    shuffled = [*moments, *random.choices(moments, k=2)]
    random.shuffle(shuffled)
    assert row_in(shuffled) == row_in(moments)
