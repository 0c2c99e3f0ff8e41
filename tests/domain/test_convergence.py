"""Whatever the order and however often snapshots arrive, our copy ends the same."""

import os
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, Json
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.domain.large_integers import rounded
from tests.domain.people import (
    ADA,
    NOON,
    Known,
    address,
    cause,
    consumed,
    minutes,
    row_of,
    webhook,
    webhooks_after,
    written,
)

EXAMPLES = int(os.environ.get("CONVERGENCE_EXAMPLES", "0"))
"""How many examples are tried of what is random; by default a few."""


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
        weight=VALUES,
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


# Kratos' clock may be right, ahead or behind; a time may be forged, or of before a backup.
anytime = st.sampled_from([-5, 0, 1, 1.5, 2, 3, 60]).map(minutes)
snapshots = st.builds(Identity.from_kratos, anything) | st.builds(Identity.from_admin_api, anything)
anything_known = st.builds(Known, snapshots, anytime)


@settings(max_examples=EXAMPLES or 60, deadline=None)
@given(st.lists(anything_known, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_any_snapshots_end_in_one_row_in_any_order(recorded: list[Known], random: Random) -> None:
    shuffled = [*recorded, *random.choices(recorded, k=2)]
    random.shuffle(shuffled)

    assert row_of(consumed(shuffled)) == row_of(consumed(recorded))


@settings(max_examples=EXAMPLES or 50, deadline=None)
@given(st.lists(anything_known, min_size=1, max_size=5))
def test_hearing_it_all_again_changes_nothing(recorded: list[Known]) -> None:
    row = consumed(recorded)
    row.mark_stored()
    row.collect_events()

    for snapshot, at in recorded:
        row.update(snapshot, at=at, cause=cause(), later=webhooks_after(recorded, at))

    assert (row.changed, row.collect_events()) == (frozenset(), [])


@settings(max_examples=EXAMPLES or 50, deadline=None)
@given(st.lists(anything_known, max_size=5), anything)
def test_an_answer_stands_for_all_that_was_recorded_before_it_was_asked_for(
    recorded: list[Known], document: dict[str, Json]
) -> None:
    answer = Known(Identity.from_admin_api(document), minutes(61))

    assert row_of(consumed([*recorded, answer])) == row_of(consumed([answer]))


@settings(max_examples=EXAMPLES or 50, deadline=None)
@given(st.integers(1, 3650), st.sampled_from([0, 0.5]), st.booleans())
def test_a_time_in_the_future_outranks_nothing_that_is_recorded_later(
    days: int, ahead: float, swapped: bool
) -> None:
    forged = Known(webhook(days * 24 * 60, state="forged"), minutes(0))
    later = Known(webhook(1 + ahead), minutes(1))

    row = consumed([later, forged] if swapped else [forged, later])

    assert (row.state, row.updated_at) == ("active", minutes(1 + ahead))


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


def sent(life: Life, sender: str, random: Random) -> Identity | None:
    shape = life.document(precise=sender == "precise webhook")
    if sender == "nobody":
        return None
    if sender == "admin":
        return Identity.from_admin_api(shape)
    shape["traits"] = rounded(shape["traits"])
    del shape["metadata_admin"]
    if sender == "passkey webhook":
        del shape["verifiable_addresses"]
    if sender == "part of a webhook":
        for key in random.sample(sorted(shape.keys() - {"id", "updated_at"}), k=4):
            del shape[key]
    return Identity.from_kratos(shape)


@settings(max_examples=EXAMPLES or 50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from(SENDERS)), max_size=8),
    st.randoms(use_true_random=False),
)
def test_a_life_as_kratos_reports_it_ends_in_what_kratos_holds(
    story: list[tuple[str, str]], random: Random
) -> None:
    # Webhooks are recorded up to three minutes after the change that they report.
    life = Life()
    calls = [Known(Identity.from_admin_api(life.document()), minutes(0))]
    for step, sender in story:
        life = life.after(step)
        if (call := sent(life, sender, random)) is not None:
            delay = 0 if call.is_exact else random.choice([0, 0.5, 3])
            calls.append(Known(call, minutes(life.clock + delay)))
    truth = Identity.from_admin_api(life.document())
    calls.append(Known(truth, minutes(life.clock + 0.5)))

    rows = []
    for _ in range(3):
        rows.append(consumed(calls))
        calls = [*calls, *random.choices(calls, k=2)]
        random.shuffle(calls)

    assert row_of(rows[0]) == row_of(rows[1]) == row_of(rows[2])
    row = rows[0]
    assert (row.traits, row.metadata_admin) == (truth.traits, truth.metadata_admin)
    assert row.verifiable_addresses == truth.verifiable_addresses
    assert row.state == truth.state
    assert row.external_id == (None if truth.external_id is ABSENT else truth.external_id)


@settings(max_examples=EXAMPLES or 50, deadline=None)
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
                    row = KratosIdentity.unseen(ADA, at=at)
                row.mark_deleted(at=at, cause=cause())
                continue
            snapshot = sent(life, what, random)
            assert snapshot is not None
            if row is None:
                row = KratosIdentity.seen(snapshot, at=at, cause=cause())
            row.update(snapshot, at=at, cause=cause())
        assert row is not None
        columns = row_of(row)
        if row.deleted_at is not None:
            del columns["created_at"], columns["updated_at"]
        return columns

    shuffled = [*moments, *random.choices(moments, k=2)]
    random.shuffle(shuffled)
    assert row_in(shuffled) == row_in(moments)
