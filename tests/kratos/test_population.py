"""The made-up population."""

import json
from uuid import UUID

import pytest

from kratos_sync.domain.identity import Identity
from tests.kratos.population import Population

NOBODY = UUID(int=0)
LAST = UUID(int=2**128 - 1)


@pytest.mark.parametrize("number", [0, 1, 7, 1000])
def test_every_identity_is_listed_once_in_the_order_of_ids(number: int) -> None:
    population, found = Population(number), [NOBODY]
    while page := population.listed(found[-1], 300):
        found += [identity_id for identity_id, _ in page]

    assert len(found) == number + 1
    assert found == sorted(set(found))


def test_an_identity_is_what_kratos_would_list() -> None:
    for identity_id, text in Population(10).listed(NOBODY, 10):
        identity = Identity.from_admin_api(json.loads(text))
        assert (identity.id, identity.is_exact, identity.is_whole) == (identity_id, True, True)
        assert identity_id.version == 4
        assert 500 < len(text) < 1000


def test_one_is_found_by_id_and_a_stranger_is_not() -> None:
    population = Population(1000)
    identity_id = population.id_of(617)

    shown = population.shown(identity_id)
    assert shown is not None
    assert json.loads(shown) == json.loads(population.document(617)) | {"credentials": {}}
    assert population.chosen([LAST, identity_id, NOBODY]) == [
        (identity_id, population.document(617))
    ]
    assert population.shown(UUID(int=identity_id.int ^ 1)) is None
    assert population.shown(LAST) is None


def test_a_removed_identity_is_not_found() -> None:
    population = Population(3)

    assert population.remove(population.id_of(1))
    assert not population.remove(population.id_of(1))
    assert [each for each, _ in population.listed(NOBODY, 9)] == [
        population.id_of(0),
        population.id_of(2),
    ]


def test_another_seed_is_other_people() -> None:
    mine, others = Population(100), Population(100, seed=1)

    assert not {mine.id_of(n) for n in range(100)} & {others.id_of(n) for n in range(100)}


def test_a_population_may_have_lost_and_changed_some() -> None:
    before, after = Population(100), Population(100, missing_every=10, changed_every=20)
    was, now = dict(before.listed(NOBODY, 100)), dict(after.listed(NOBODY, 100))

    assert len(was.keys() - now.keys()) == 10
    assert not now.keys() - was.keys()
    changed = [each for each in now if now[each] != was[each]]
    assert len(changed) == 5
    assert all(
        json.loads(now[each])["updated_at"] > json.loads(was[each])["updated_at"]
        for each in changed
    )
