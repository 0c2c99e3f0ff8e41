"""What reconciling does: on the in-memory ledger, and on a real PostgreSQL."""

from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from kratos_sync.application import reconcile
from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.application.ports.kratos import KratosRefused, KratosUnavailable, Page
from kratos_sync.application.ports.reconciliation import AnotherReconciliation, ListingUnordered
from kratos_sync.application.reconcile import AnotherKratos, ConsumersAreBehind, DeletesRefused
from kratos_sync.domain.events import KratosTemplateFailed
from kratos_sync.testing.kratos import Document
from tests.kratos.persons import many, person
from tests.suites.reconciling import World, world_in_memory, world_on_postgres

UPDATED, GONE = "kratos_identity.updated", "kratos_identity.gone"
ELSEWHERE = "https://elsewhere.example.org/schemas/cGVyc29u"
LATER = "2026-03-01T00:00:00.000001Z"
REFUSED_TOKEN = KratosRefused("it answered 400", 400)


@pytest.fixture(params=["in memory", "PostgreSQL"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "in memory":
        return world_in_memory()
    return world_on_postgres(request.getfixturevalue("engine"))


def id_of(document: Document) -> UUID:
    return UUID(document["id"])


def changed(document: Document, **fields: Any) -> Document:
    return {**document, "updated_at": LATER, **fields}


def interrupt(world: World, steps: int) -> None:
    """Reconcile so many steps, and go away."""
    run = world.use_case().run(dry_run=False)
    for _ in range(steps + 1):
        next(run)
    run.close()


def test_a_missing_identity_is_recorded_and_copied(world: World) -> None:
    ada = person(metadata_admin={"plan": "gold"}, traits={"loyalty_number": 9007199254740993})
    world.town.put(ada)

    found = world.reconcile()

    assert (found.identities, found.known, found.missing, found.stale) == (1, 0, 1, 0)
    assert world.found == [(id_of(ada), None)]
    assert world.events() == [(UPDATED, id_of(ada))]
    world.consume()
    assert world.alive() == world.listing()
    assert world.alive()[id_of(ada)]["traits"] == {"loyalty_number": 9007199254740993}


def test_an_equal_identity_records_nothing(world: World) -> None:
    world.copy(*many(5))
    events = world.events()

    found = world.reconcile()

    assert (found.held, found.known, found.repairs, found.unlisted) == (5, 5, 0, 0)
    assert world.events() == events


def test_a_difference_names_its_fields(world: World) -> None:
    ada, grace = many(2)
    world.copy(ada, grace)
    world.town.put(changed(ada, traits={"email": "new@example.org"}, state="inactive"))

    found = world.reconcile()

    assert world.found == [(id_of(ada), ("state", "traits", "updated_at"))]
    assert found.fields == {"state": 1, "traits": 1, "updated_at": 1}
    assert (found.stale, found.missing, found.known) == (1, 0, 2)
    world.consume()
    assert world.alive() == world.listing()


def test_a_verification_that_moves_no_time_is_found(world: World) -> None:
    ada = person()
    world.copy(ada)
    (address,) = ada["verifiable_addresses"]
    proof = {"verified": True, "status": "completed", "verified_at": LATER}
    world.town.put({**ada, "verifiable_addresses": [{**address, **proof}]})

    world.reconcile()
    world.consume()

    assert world.found == [(id_of(ada), ("verifiable_addresses",))]
    assert world.alive() == world.listing()


def test_a_copy_from_a_webhook_lacks_what_only_administrators_see(world: World) -> None:
    ada = person(metadata_admin={"plan": "gold"})
    world.town.put(ada)
    world.receive(ada)

    world.reconcile()
    world.consume()

    assert world.found == [(id_of(ada), ("metadata_admin",))]
    assert world.alive() == world.listing()


def test_a_large_integer_that_a_webhook_rounded_becomes_exact(world: World) -> None:
    ada = person(traits={"n": 9007199254740993})
    world.town.put(ada)
    world.receive(person(id_of(ada), **{**ada, "traits": {"n": 9007199254740992.0}}))

    world.reconcile()
    world.consume()

    assert world.alive()[id_of(ada)]["traits"] == {"n": 9007199254740993}


def test_a_webhook_that_is_newer_than_the_page_stands(world: World) -> None:
    ada = person()
    world.copy(ada)
    newer = changed(ada, traits={"email": "newer@example.org"})
    world.kratos.before = lambda requests: world.receive(newer)

    found = world.reconcile()

    assert found.repairs == 0
    assert world.alive()[id_of(ada)]["traits"] == newer["traits"]


def test_an_unlisted_identity_is_looked_up_and_only_deleted_if_kratos_has_none(
    world: World,
) -> None:
    ada, grace, mary = many(3)
    world.copy(ada, grace, mary)
    world.town.remove(id_of(ada))
    world.town.remove(id_of(grace))
    pages = world.kratos.requests

    def grace_is_back(requests: int) -> None:
        if requests == pages + 2:
            world.town.put(grace)

    world.kratos.before = grace_is_back
    found = world.reconcile()
    world.consume()

    assert (found.unlisted, found.deleted) == (2, 1)
    assert world.found == [(id_of(ada), ())]
    assert world.alive().keys() == {id_of(grace), id_of(mary)}
    assert world.rows()[id_of(ada)].deleted_at is not None


def test_an_identity_registered_during_the_run_is_not_looked_up(world: World) -> None:
    world.copy(*many(2))
    new = person(created_at="2999-01-01T00:00:00Z", updated_at="2999-01-01T00:00:00Z")
    world.kratos.before = lambda _: world.receive(new)

    found = world.reconcile()

    assert (found.unlisted, found.deleted) == (0, 0)
    assert id_of(new) in world.alive()


def test_an_identity_deleted_between_two_pages_is_found_by_this_run(world: World) -> None:
    people = many(5)
    world.copy(*people)
    world.kratos.page_size = 2
    pages = world.kratos.requests

    def delete(requests: int) -> None:
        if requests == pages + 2:
            world.town.remove(id_of(people[4]))

    world.kratos.before = delete
    assert world.reconcile().deleted == 1


def test_an_identity_created_behind_the_cursor_is_found_by_the_next_run(world: World) -> None:
    people = many(5)
    world.copy(*people[1:])
    world.kratos.page_size = 2
    pages = world.kratos.requests

    def make(requests: int) -> None:
        if requests == pages + 2:
            world.town.put(people[0])

    world.kratos.before = make
    assert world.reconcile().missing == 0
    assert world.reconcile().missing == 1
    world.consume()
    assert world.alive() == world.listing()


def test_a_tombstone_that_kratos_shows_alive_is_healed(world: World) -> None:
    ada, grace = many(2)
    world.copy(ada, grace)
    world.town.remove(id_of(ada))
    world.reconcile()
    world.consume()
    world.town.put(ada)
    world.found.clear()

    found = world.reconcile()
    world.consume()

    assert world.found == [(id_of(ada), ("deleted_at",))]
    assert (found.stale, found.missing) == (1, 0)
    assert world.alive() == world.listing()


@pytest.mark.parametrize(
    ("held", "gone", "allow", "is_refused"),
    [
        (12, 10, 0, False),
        (12, 11, 0, True),
        (12, 11, 11, False),
        (12, 11, 10, True),
        (12, 10, 1, False),
        (1_200, 12, 0, False),
        (1_200, 13, 0, True),
    ],
)
def test_more_than_ten_or_one_in_a_hundred_are_not_deleted_unasked(
    held: int, gone: int, allow: int, is_refused: bool, engine: Any
) -> None:
    world = world_on_postgres(engine)
    people = many(held)
    world.copy(*people)
    for document in people[:gone]:
        world.town.remove(id_of(document))

    if is_refused:
        with pytest.raises(DeletesRefused, match=f"^{gone} of "):
            world.reconcile(allow_deletes=allow)
    else:
        world.reconcile(allow_deletes=allow)
    world.consume()

    assert len(world.alive()) == held - (0 if is_refused else gone)


def test_an_empty_listing_deletes_nothing_whatever_is_allowed(world: World) -> None:
    world.copy(*many(3))
    world.town.documents.clear()

    with pytest.raises(DeletesRefused, match=r"^Kratos lists no identity$"):
        world.reconcile(allow_deletes=1_000_000)
    assert len(world.alive()) == 3


def test_a_listing_without_known_identities_deletes_nothing(world: World) -> None:
    world.copy(*many(3))
    world.town.documents.clear()
    for document in many(3):
        world.town.put(document)

    with pytest.raises(DeletesRefused, match="no identity that is held here"):
        world.reconcile(allow_deletes=1_000_000)
    assert GONE not in {name for name, _ in world.events()}


def test_a_listing_that_begins_with_unknown_identities_is_another_kratos(world: World) -> None:
    world.copy(*many(11))
    world.town.documents.clear()
    for document in many(3):
        world.town.put(document)
    events = world.events()

    for dry_run in (True, False):
        with pytest.raises(AnotherKratos, match="begins with no identity that is held here"):
            world.reconcile(dry_run=dry_run)
    assert world.events() == events


def test_a_kratos_that_lists_strangers_first_and_has_none_of_ours_is_another_one(
    world: World,
) -> None:
    ids = [UUID(int=number << 64) for number in range(1, 1_511)]
    ours = {*ids[100:600:100], *ids[800:820]}
    world.copy(*map(person, ours))
    world.town.documents.clear()
    for each in ids:
        if each not in ours:
            world.town.put(person(each))

    events = world.events()

    with pytest.raises(AnotherKratos, match="no identity that is held here"):
        world.reconcile()

    assert world.events() == events


def test_a_listing_that_begins_with_strangers_is_ours_if_kratos_has_others_of_ours(
    world: World,
) -> None:
    ids = [UUID(int=number << 64) for number in range(1, 31)]
    world.copy(*map(person, ids[15:]))
    world.kratos.page_size = 5
    for each in ids[:15]:
        world.town.put(person(each))

    assert world.reconcile().missing == 15
    world.consume()
    assert world.alive() == world.listing()


def test_a_few_identities_held_do_not_reject_unknown_ones(world: World) -> None:
    world.copy(*many(10))
    world.town.documents.clear()
    for document in many(3):
        world.town.put(document)

    with pytest.raises(DeletesRefused):
        world.reconcile()
    world.consume()
    assert len(world.alive()) == 13


def test_an_empty_listing_is_accepted_where_nothing_is_held(world: World) -> None:
    assert world.reconcile().identities == 0


def elsewhere(world: World) -> list[Document]:
    """Some whom we hold, in a Kratos that has its schemas elsewhere, and lacks one."""
    people = many(3)
    world.copy(*people)
    moved = [changed(each, schema_url=ELSEWHERE) for each in people[1:]]
    world.town.documents.clear()
    for document in moved:
        world.town.put(document)
    return people


@pytest.mark.parametrize("public_url", [None, "http://127.0.0.1:4433"])
def test_a_listing_with_foreign_schemas_is_another_kratos(
    world: World, public_url: str | None
) -> None:
    elsewhere(world)
    world.public_url = public_url
    events = world.events()

    with pytest.raises(AnotherKratos, match=r"set KRATOS_PUBLIC_URL .* https://elsewhere\.example"):
        world.reconcile(allow_deletes=1_000_000)

    assert world.events() == events


def test_a_foreign_listing_without_known_identities_is_no_move(world: World) -> None:
    ours, strangers = many(3), many(3)
    world.copy(*ours)
    world.town.documents.clear()
    for document in strangers:
        world.town.put(changed(document, schema_url=ELSEWHERE))

    with pytest.raises(AnotherKratos, match="another Kratos") as refused:
        world.reconcile(allow_deletes=1_000_000)
    assert "moved" not in str(refused.value)


def test_a_kratos_that_has_moved_to_the_public_url_is_ours(world: World) -> None:
    people = elsewhere(world)
    world.public_url = "https://ELSEWHERE.example.org:443/"

    world.reconcile()
    world.consume()

    assert world.alive() == world.listing()
    assert id_of(people[0]) not in world.alive()


def test_a_page_of_another_kratos_in_the_middle_ends_it(world: World) -> None:
    people = many(4)
    world.copy(*people)
    world.kratos.page_size = 2
    interrupt(world, steps=1)
    for document in people[2:]:
        world.town.put(changed(document, schema_url=ELSEWHERE))

    with pytest.raises(AnotherKratos):
        world.reconcile()


@pytest.mark.parametrize("after", [1, 2])
def test_an_error_in_the_middle_deletes_nothing_and_the_next_run_continues(
    world: World, after: int
) -> None:
    people = many(6)
    world.copy(*people)
    world.kratos.page_size = 2
    world.town.remove(id_of(people[0]))
    requests = world.kratos.requests

    def go_away(now: int) -> None:
        if now == requests + 1 + after:
            world.kratos.fail(1)

    world.kratos.before = go_away
    with pytest.raises(KratosUnavailable):
        world.reconcile()
    assert GONE not in {name for name, _ in world.events()}

    found = world.reconcile()
    assert (found.pages, found.deleted) == (3, 1)


def test_an_error_during_lookups_deletes_nothing_more(world: World) -> None:
    people = many(4)
    world.copy(*people)
    world.town.remove(id_of(people[0]))
    requests = world.kratos.requests

    def refuse(now: int) -> None:
        if now == requests + 2:
            world.kratos.fail(1, KratosRefused("it answered 404: is KRATOS_ADMIN_URL right?", 404))

    world.kratos.before = refuse
    with pytest.raises(KratosRefused):
        world.reconcile()
    assert GONE not in {name for name, _ in world.events()}

    assert world.reconcile().deleted == 1


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_an_interrupted_run_continues_and_records_nothing_twice(world: World, steps: int) -> None:
    people = many(6)
    world.copy(*people)
    world.kratos.page_size = 2
    for document in people[:4]:
        world.town.put(changed(document))
    world.town.remove(id_of(people[4]))
    before = len(world.events())

    interrupt(world, steps)
    found = world.reconcile()

    recorded = world.events()[before:]
    assert sorted(recorded) == sorted(
        [*((UPDATED, id_of(each)) for each in people[:4]), (GONE, id_of(people[4]))]
    )
    assert (found.stale, found.deleted, found.identities) == (4, 1, 5)
    world.consume()
    assert world.alive() == world.listing()


def test_after_a_token_that_kratos_no_longer_takes_it_starts_over(world: World) -> None:
    people = many(6)
    world.copy(*people)
    world.kratos.page_size = 2
    for document in people:
        world.town.put(changed(document))
    before = len(world.events())
    interrupt(world, steps=2)
    world.kratos.fail(1, REFUSED_TOKEN)

    found = world.reconcile()

    assert (found.pages, found.identities, found.stale) == (3, 6, 6)
    assert len(world.events()) == before + 6


def test_an_identity_unlisted_before_starting_over_is_looked_up_once(world: World) -> None:
    people = many(6)
    world.copy(*people)
    world.kratos.page_size = 2
    world.town.remove(id_of(people[0]))
    interrupt(world, steps=1)
    world.kratos.fail(1, REFUSED_TOKEN)

    assert (world.reconcile().unlisted, world.events()[-1]) == (1, (GONE, id_of(people[0])))


def test_a_tombstone_is_not_asked_for_again(world: World) -> None:
    people = many(3)
    world.copy(*people)
    world.town.remove(id_of(people[1]))
    world.reconcile()
    world.consume()

    found = world.reconcile()

    assert (found.held, found.unlisted, found.deleted) == (2, 0, 0)


def test_what_changes_again_before_starting_over_is_recorded_again(world: World) -> None:
    people = many(4)
    world.copy(*people)
    world.kratos.page_size = 2
    world.town.put(changed(people[0]))
    interrupt(world, steps=1)
    world.consume()
    world.town.put(changed(people[0], traits={}, updated_at="2026-04-01T00:00:00Z"))
    world.kratos.fail(1, REFUSED_TOKEN)

    world.reconcile()
    world.consume()

    assert world.alive() == world.listing()


def test_a_kratos_that_takes_none_of_its_tokens_is_not_asked_for_ever(world: World) -> None:
    world.copy(*many(4))
    world.kratos.page_size = 2
    interrupt(world, steps=1)
    tokens: list[str | None] = []
    page = world.kratos.page

    def refuse(token: str | None) -> Any:
        tokens.append(token)
        if token is not None:
            raise REFUSED_TOKEN
        return page(None)

    world.kratos.page = refuse  # type: ignore[method-assign]
    with pytest.raises(KratosRefused):
        world.reconcile()
    assert len(tokens) == 3


def test_what_else_is_refused_after_an_interruption_is_no_reason_to_start_over(
    world: World,
) -> None:
    world.copy(*many(4))
    world.kratos.page_size = 2
    interrupt(world, steps=1)
    world.kratos.fail(1, KratosRefused("it answered 401", 401))

    with pytest.raises(KratosRefused, match="401"):
        world.reconcile()
    assert world.reconcile().pages == 2


def test_a_token_refused_in_a_fresh_scan_is_an_error(world: World) -> None:
    world.copy(*many(4))
    world.kratos.page_size = 2
    run = world.use_case().run(dry_run=False)
    next(run), next(run)
    world.kratos.fail(1, REFUSED_TOKEN)
    with pytest.raises(KratosRefused):
        next(run)


def test_there_is_one_at_a_time(world: World) -> None:
    run = world.use_case().run(dry_run=False)
    next(run)

    for dry_run in (False, True):
        with pytest.raises(AnotherReconciliation):
            world.reconcile(dry_run=dry_run)
    run.close()
    world.reconcile()


def test_a_listing_out_of_order_is_refused(world: World) -> None:
    world.copy(*many(4))
    world.kratos.page_size = 2
    first = world.kratos.page(None)
    with suppress(StopIteration):
        run = world.use_case().run(dry_run=False)
        next(run), next(run)
    world.kratos.page = lambda token: first  # type: ignore[method-assign]

    with pytest.raises(ListingUnordered):
        next(run)
    assert len(world.alive()) == 4


def test_a_listing_that_goes_on_after_an_empty_page_is_refused(world: World) -> None:
    world.copy(*many(4))
    world.kratos.page = lambda token: Page(b"[]", "another")  # type: ignore[method-assign]

    with pytest.raises(ListingUnordered):
        world.reconcile()
    assert len(world.alive()) == 4


@pytest.mark.parametrize(
    "odd", [{"created_at": "yesterday"}, {"state": 7}, {"organization_id": "none"}]
)
def test_an_unreadable_identity_does_not_stop_the_others(
    world: World, odd: dict[str, object]
) -> None:
    people = many(5)
    world.copy(*people[:4])
    world.town.put({**people[2], **odd})
    world.town.put({**people[4], **odd})
    world.town.put(changed(people[1]))

    found = world.reconcile()

    assert (found.unreadable, found.stale, found.unlisted, found.missing) == (2, 1, 0, 0)


def test_a_dry_run_finds_the_same_and_records_nothing(world: World) -> None:
    people = many(6)
    world.copy(*people[:5])
    world.town.put(changed(people[0]))
    world.town.put(people[5])
    world.town.remove(id_of(people[1]))
    events = world.events()

    dry = world.reconcile(dry_run=True)
    dry_found, world.found = world.found, []

    assert world.events() == events
    assert not world.ledger.deliveries
    assert world.reconcile() == dry
    assert sorted(world.found, key=str) == sorted(dry_found, key=str)
    assert (dry.stale, dry.missing, dry.deleted) == (1, 1, 1)


def test_a_dry_run_refuses_what_a_real_one_would(world: World) -> None:
    people = many(12)
    world.copy(*people)
    for document in people[:11]:
        world.town.remove(id_of(document))
    with pytest.raises(DeletesRefused):
        world.reconcile(dry_run=True)


def test_it_is_due_when_none_that_ended_began_since(world: World) -> None:
    assert world.reconciliations.is_due(timedelta(hours=1))
    interrupt(world, steps=0)
    assert world.reconciliations.is_due(timedelta(hours=1))
    world.reconcile()
    assert not world.reconciliations.is_due(timedelta(hours=1))
    assert world.reconciliations.is_due(timedelta(0))


def test_a_template_that_failed_makes_it_due_soon(world: World) -> None:
    def fail() -> None:
        event = KratosTemplateFailed(uuid7(), world.now(), "login")
        world.ledger.publish(event, Provenance("webhook"))

    hour = timedelta(hours=1)
    fail()
    world.reconcile()
    world.pass_time(timedelta(minutes=2))
    assert not world.reconciliations.is_due(hour)
    fail()
    assert world.reconciliations.is_due(hour)
    world.reconcile()
    fail()
    assert not world.reconciliations.is_due(hour)
    world.pass_time(timedelta(minutes=2))
    assert world.reconciliations.is_due(hour)


def test_a_reconciliation_that_took_long_is_not_repeated_at_once(world: World) -> None:
    world.kratos.page_size = 1
    for document in many(2):
        world.town.put(document)
    runs = world.use_case().run(dry_run=False)
    next(runs)
    world.pass_time(timedelta(minutes=20))
    list(runs)
    world.ledger.publish(KratosTemplateFailed(uuid7(), world.now(), ""), Provenance("webhook"))
    world.pass_time(timedelta(minutes=15))
    assert not world.reconciliations.is_due(timedelta(hours=1))
    world.pass_time(timedelta(minutes=10))
    assert world.reconciliations.is_due(timedelta(hours=1))


def test_a_relay_is_woken_after_each_page_that_differs(world: World) -> None:
    people = many(6)
    world.copy(*people)
    world.wakes = 0
    world.kratos.page_size = 2
    world.town.put(changed(people[0]))
    world.town.remove(id_of(people[5]))
    world.reconcile()
    assert world.wakes == 2


def test_no_further_page_is_asked_for_while_many_deliveries_are_pending(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kratos_sync.application.reconcile.MOST_IN_FLIGHT", 3)
    world.kratos.page_size = 2
    for document in many(9):
        world.town.put(document)
    most = 0

    def look(_: int) -> None:
        nonlocal most
        most = max(most, len(world.ledger.deliveries))

    world.kratos.before = look
    world.reconcile()
    assert 2 <= most <= 3


def test_consumers_that_do_nothing_are_not_waited_for_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timedelta(minutes=10).total_seconds() == reconcile.MOST_POLLS * reconcile.POLL_SECONDS
    monkeypatch.setattr(reconcile, "MOST_POLLS", 100)
    monkeypatch.setattr(reconcile, "MOST_IN_FLIGHT", 3)
    monkeypatch.setattr(World, "consume", lambda _: None)
    for _ in range(7):
        world.town.put(person())

    with pytest.raises(ConsumersAreBehind):
        world.reconcile()

    assert world.reconciliations.in_flight(9) == 7
