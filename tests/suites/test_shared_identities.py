"""Reconciling where several deployments share the identities of one Kratos."""

from uuid import UUID, uuid4

import pytest

from kratos_sync.application.reconcile import AnotherKratos, DeletesRefused
from kratos_sync.domain.id_range import IdRange
from kratos_sync.testing.kratos import Document
from tests.kratos.persons import person
from tests.suites.reconciling import World, share, world_in_memory, world_on_postgres

LOW, HIGH = IdRange.parse("0-7"), IdRange.parse("8-f")
ELSEWHERE = "https://elsewhere.example.org/schemas/cGVyc29u"
MOVED = {"state": "inactive", "updated_at": "2026-03-01T00:00:00.000001Z"}


@pytest.fixture(params=["in memory", "PostgreSQL"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "in memory":
        return world_in_memory()
    return world_on_postgres(request.getfixturevalue("engine"))


def people(digit: str, number: int) -> list[Document]:
    """So many whose ids begin with this digit."""
    return [person(UUID(digit + uuid4().hex[1:])) for _ in range(number)]


def ids_of(documents: list[Document]) -> set[UUID]:
    return {UUID(each["id"]) for each in documents}


def fill(world: World, *documents: Document) -> None:
    for each in documents:
        world.town.put(each)


@pytest.mark.parametrize("page_size", [2, 3, 500])
def test_identities_of_others_are_not_missing(world: World, page_size: int) -> None:
    low, high = people("3", 7), people("c", 5)
    fill(world, *low, *high)
    world.kratos.page_size = page_size
    share(world, HIGH)

    found = world.reconcile()
    world.consume()

    assert (found.identities, found.known, found.missing) == (5, 0, 5)
    assert world.alive().keys() == ids_of(high)
    assert world.reconcile().repairs == 0


@pytest.mark.parametrize("dry_run", [True, False])
def test_left_over_copies_of_others_are_neither_held_nor_stale_nor_deleted(
    world: World, dry_run: bool
) -> None:
    low, high = people("3", 6), people("c", 6)
    world.copy(*low, *high)
    world.town.remove(UUID(low[0]["id"]))
    world.town.remove(UUID(high[0]["id"]))
    fill(world, {**low[1], **MOVED}, {**high[1], **MOVED})
    world.kratos.page_size = 2
    share(world, HIGH)

    found = world.reconcile(dry_run=dry_run)

    assert (found.held, found.identities, found.stale) == (6, 5, 1)
    assert (found.unlisted, found.deleted) == (1, 1)
    assert {identity_id for identity_id, _ in world.found} == ids_of(high[:2])


def test_the_limit_of_deletions_counts_what_is_held(world: World) -> None:
    low, high = people("3", 4), people("c", 12)
    world.copy(*low, *high)
    for each in high[1:]:
        world.town.remove(UUID(each["id"]))
    share(world, HIGH)

    with pytest.raises(DeletesRefused, match="11 of 12 are not listed"):
        world.reconcile()
    share(world, LOW)
    assert world.reconcile().repairs == 0


def test_pages_of_others_are_not_of_another_kratos(world: World) -> None:
    low, high = people("3", 12), people("c", 12)
    world.copy(*high)
    fill(world, *({**each, "schema_url": ELSEWHERE} for each in low))
    world.kratos.page_size = 2
    share(world, HIGH)

    found = world.reconcile()

    assert (found.identities, found.known, found.repairs) == (12, 12, 0)


@pytest.mark.parametrize(("theirs", "ours", "ids"), [("3", "c", HIGH), ("c", "3", LOW)])
def test_another_kratos_is_known_by_what_is_held(
    world: World, theirs: str, ours: str, ids: IdRange
) -> None:
    left_over, held = people(theirs, 30), people(ours, 12)
    world.copy(*left_over, *held)
    for each in held:
        world.town.remove(UUID(each["id"]))
    fill(world, *people(ours, 12))
    share(world, ids)

    with pytest.raises(AnotherKratos):
        world.reconcile()
    assert len(world.alive()) == 42


def test_no_page_is_requested_after_the_last_identity_that_is_held(world: World) -> None:
    fill(world, *people("3", 4), *people("c", 20))
    world.kratos.page_size = 2
    share(world, LOW)

    found = world.reconcile()

    assert (found.pages, found.identities) == (3, 4)


def test_a_run_that_goes_on_with_fewer_identities_drops_the_others(world: World) -> None:
    low, high = people("3", 6), people("c", 6)
    world.copy(*low, *high)
    world.town.remove(UUID(low[0]["id"]))
    world.town.remove(UUID(high[0]["id"]))
    run = world.use_case().run(dry_run=False)
    next(run), next(run)
    run.close()
    share(world, HIGH)

    found = world.reconcile()

    assert found.deleted == 1
    assert world.found == [(UUID(high[0]["id"]), ())]
