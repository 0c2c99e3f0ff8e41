"""Whatever people and administrators did, and whichever webhooks came: a reconciliation repairs it.

RECONCILE_EXAMPLES says how many histories are tried, on each kind of ledger. Where KRATOS_BINARY
names a Kratos, they happen in that too.
"""

import faulthandler
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Protocol
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kratos_sync.application.application import Subscriptions
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.subscriptions import SUBSCRIPTIONS
from kratos_sync.domain.events import KratosIdentityGone, KratosIdentityUpdated
from kratos_sync.domain.json_values import same
from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin
from tests.kratos.living import ACTIONS, BEGINNINGS, LivingKratos
from tests.kratos.real_kratos import RealKratos
from tests.suites.reconciling import World, world_in_memory, world_on_postgres

EXAMPLES = int(os.environ.get("RECONCILE_EXAMPLES", "0"))
EXAMPLE_SECONDS = 120
"""A history that takes longer hangs; however many there are, and are shrunk, that is no fault."""
PEOPLE = 4
FATES = ["received", "received", "lost", "twice", "late"]
TABLES = [
    f"kratos_sync.{name}"
    for name in (
        "kratos_identities",
        "events",
        "deliveries",
        "attempts",
        "reconciliations",
        "unseen_identities",
        "registrations_per_day",
    )
]
CONSUMED: list[UUID] = []

Step = tuple[str, int, int]

steps: st.SearchStrategy[Step] = st.tuples(
    st.sampled_from([*BEGINNINGS, *ACTIONS, *ACTIONS]),
    st.integers(0, PEOPLE - 1),
    st.integers(0, 3),
)
histories = st.lists(steps, min_size=10, max_size=40)


class HearOfUpdates(Consumer[KratosIdentityUpdated]):
    """A consumer of an application's own."""

    name = "HearOfUpdates"

    def consume(self, event: KratosIdentityUpdated) -> None:
        CONSUMED.append(event.id)


class HearOfDeletions(Consumer[KratosIdentityGone]):
    """Another one."""

    name = "HearOfDeletions"

    def consume(self, event: KratosIdentityGone) -> None:
        CONSUMED.append(event.id)


SUBSCRIBED = Subscriptions(
    SUBSCRIPTIONS,
    {KratosIdentityUpdated: (HearOfUpdates,), KratosIdentityGone: (HearOfDeletions,)},
)
TALLY: Counter[str] = Counter()


class Kratos(Protocol):
    """People by number who live, and the webhooks that were sent of it."""

    def does(self, action: str, number: int, value: int) -> None: ...
    def calls(self) -> list[dict[str, Any]]: ...


def live(world: World, kratos: Kratos, history: list[Step], random: Random) -> None:
    """Let it all happen, lose and shuffle the webhooks, reconcile once, and compare."""
    world.ledger.subscriptions = SUBSCRIBED
    faulthandler.dump_traceback_later(EXAMPLE_SECONDS, exit=True, file=sys.__stderr__)
    # Some whom we hold as they are; nothing happens to the last, or Kratos might list nobody.
    for number in (0, 1, PEOPLE):
        kratos.does("create", number, 0)
    world.reconcile()
    world.consume()
    for step in history:
        kratos.does(*step)
    fates = [(call, random.choice(FATES)) for call in kratos.calls()]
    received = [call for call, fate in fates if fate in {"received", "twice"}]
    received += [call for call, fate in fates if fate == "twice"]
    random.shuffle(received)
    for call in received:
        world.receive(call, consumed=False)
    world.consume()
    # This reconciliation cannot know who is deleted and of whom no webhook was received.
    listed = world.listing().keys()
    known = world.rows().keys() | listed
    late = [call for call, fate in fates if fate == "late" and UUID(call["id"]) in known]

    wrong = differing(world)
    before = set(world.ledger.events)
    found = world.reconcile(allow_deletes=1_000)
    for call in late:
        world.receive(call, consumed=False)
    world.consume()

    events = world.ledger.events
    sources = {each: events[each].source for each in CONSUMED}
    assert {sources[each] for each in CONSUMED if each not in before} <= {"reconcile", "webhook"}
    repaired = [each for each in CONSUMED if each not in before and sources[each] == "reconcile"]
    assert sorted(events[each].subject for each in repaired) == sorted(wrong)
    assert found.repairs == len(wrong)
    assert differing(world) == set()
    tombstones = {each.id for each in world.rows().values() if each.deleted_at is not None}
    assert tombstones == known - listed
    assert world.reconcile().repairs == 0
    TALLY.update(
        histories=1, steps=len(history), webhooks=len(received) + len(late), repairs=len(wrong)
    )


def differing(world: World) -> set[UUID]:
    """Who is not here as Kratos has them, column by column."""
    here, there = world.alive(), world.listing()
    return {
        each
        for each in here.keys() | there.keys()
        if each not in here
        or each not in there
        or not all(same(here[each][name], there[each][name]) for name in there[each])
    }


@pytest.fixture(autouse=True)
def _tally() -> Iterator[None]:
    yield
    print(dict(TALLY))
    TALLY.clear()


def emptied(engine: Engine) -> World:
    """A database in which nothing has happened."""
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(TABLES)}"))
    return world_on_postgres(engine)


def test_one_reconciliation_mends_what_any_history_did_in_memory() -> None:
    @settings(max_examples=EXAMPLES or 100, deadline=None, derandomize=not EXAMPLES, database=None)
    @given(histories, st.randoms(use_true_random=False))
    def run(history: list[Step], random: Random) -> None:
        CONSUMED.clear()
        world = world_in_memory()
        live(world, LivingKratos(world.town), history, random)

    run()
    assert TALLY["repairs"] > 100


def test_one_reconciliation_mends_what_any_history_did_on_postgres(engine: Engine) -> None:
    @settings(max_examples=EXAMPLES or 40, deadline=None, derandomize=not EXAMPLES, database=None)
    @given(histories, st.randoms(use_true_random=False))
    def run(history: list[Step], random: Random) -> None:
        CONSUMED.clear()
        world = emptied(engine)
        live(world, LivingKratos(world.town), history, random)

    run()
    assert TALLY["repairs"] > 40


@pytest.mark.skipif("KRATOS_BINARY" not in os.environ, reason="KRATOS_BINARY names no Kratos")
def test_one_reconciliation_mends_what_any_history_did_in_a_real_kratos(
    engine: Engine, tmp_path: Path
) -> None:
    with RealKratos(os.environ["KRATOS_BINARY"], tmp_path) as kratos:
        admin = HttpKratosAdmin(SecretStr(kratos.admin_url))

        @settings(
            max_examples=EXAMPLES or 10, deadline=None, derandomize=not EXAMPLES, database=None
        )
        @given(histories, st.randoms(use_true_random=False))
        def run(history: list[Step], random: Random) -> None:
            CONSUMED.clear()
            kratos.begin_anew()
            world = emptied(engine)
            world.admin = admin
            live(world, kratos, history, random)

        run()
        admin.close()
    assert TALLY["repairs"] > 10
