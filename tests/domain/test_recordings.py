"""What a real Kratos sent, in any order, ends in what its Admin API then said."""

import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kratos_sync.domain.identity import Identity
from kratos_sync.domain.json_values import ABSENT, same_as_doubles
from kratos_sync.domain.kratos_identity import KratosIdentity
from kratos_sync.domain.merging import ReceivedWebhook
from kratos_sync.testing.fakes import InMemoryKratosIdentities
from tests.domain.people import NOON, cause

RECORDINGS = Path(__file__).parent.parent / "recordings"
WEBHOOKS = [
    Identity.from_kratos(json.loads(line)["body"]["identity"])
    for line in (RECORDINGS / "webhooks.jsonl").read_text().splitlines()
]
ADMIN: Any = json.loads((RECORDINGS / "admin.json").read_text())
LIVES: Any = json.loads(gzip.decompress((RECORDINGS / "lives.json.gz").read_bytes()))
LISTING = [Identity.from_admin_api(person) for person in LIVES["listing"]]
CALLS = [Identity.from_kratos(call["body"]["identity"]) for call in LIVES["calls"]]


def known_at(snapshot: Identity) -> datetime:
    """The webhooks were recorded after Kratos had been asked for the listing."""
    return NOON if snapshot.is_exact else NOON + timedelta(minutes=1)


def copies_after(snapshots: list[Identity]) -> InMemoryKratosIdentities:
    copies = InMemoryKratosIdentities()
    everything = [ReceivedWebhook(each, known_at(each)) for each in snapshots if not each.is_exact]
    for snapshot in snapshots:
        copy = copies.find(snapshot.id)
        webhooks = [each for each in everything if each.identity.id == snapshot.id]
        if copy is None:
            copies.add(KratosIdentity.seen(snapshot, at=known_at(snapshot), cause=cause()))
        else:
            copy.update(snapshot, at=known_at(snapshot), cause=cause(), later=webhooks)
    return copies


def differences(copy: KratosIdentity, truth: Identity) -> list[str]:
    """The fields in which our copy is not what the Admin API said."""
    exact = [
        "schema_id",
        "schema_url",
        "state",
        "state_changed_at",
        "created_at",
        "updated_at",
        "organization_id",
        "verifiable_addresses",
        "recovery_addresses",
        "metadata_public",
    ]
    wrong = [name for name in exact if getattr(copy, name) != getattr(truth, name)]
    return wrong if same_as_doubles(copy.traits, truth.traits) else [*wrong, "traits"]


def shuffled(snapshots: list[Identity], seed: int) -> list[Identity]:
    random = Random(seed)
    calls = [*snapshots, *random.choices(snapshots, k=50)]
    random.shuffle(calls)
    return calls


@pytest.mark.parametrize("seed", range(20))
def test_the_recorded_webhooks_end_in_the_recorded_listing(seed: int) -> None:
    listing = {
        person.id: person
        for page in ADMIN["pages"]
        for person in map(Identity.from_admin_api, page["body"])
    }
    copies = copies_after(WEBHOOKS if seed == 0 else shuffled(WEBHOOKS, seed))

    (deleted,) = {copy.id for copy in copies} - listing.keys()
    for copy in copies:
        if copy.id == deleted:
            continue
        assert differences(copy, listing[copy.id]) == []


@pytest.mark.parametrize("seed", range(5))
def test_two_hundred_lives_end_in_the_listing(seed: int) -> None:
    copies = copies_after(CALLS if seed == 0 else shuffled(CALLS, seed))

    listing = [Identity.from_admin_api(person) for person in LIVES["listing"]]
    assert len(copies) == len(listing) == 200
    for truth in listing:
        copy = copies.find(truth.id)
        assert copy is not None
        assert differences(copy, truth) == []


def test_the_listing_makes_every_number_exact_and_keeps_it_so() -> None:
    listing = [Identity.from_admin_api(person) for person in LIVES["listing"]]

    for copy in copies_after(shuffled([*CALLS, *listing], 7)):
        (truth,) = (person for person in listing if person.id == copy.id)
        assert copy.traits == truth.traits
        assert copy.metadata_admin == truth.metadata_admin


def test_no_recorded_webhook_is_exact_and_every_one_is_whole() -> None:
    assert not any(snapshot.is_exact for snapshot in [*WEBHOOKS, *CALLS])
    assert all(snapshot.is_whole for snapshot in [*WEBHOOKS, *CALLS])


def test_recorded_addresses_go_back_to_what_was_recorded() -> None:
    for call, snapshot in zip(LIVES["calls"], CALLS, strict=True):
        sent = {each["id"]: each for each in call["body"]["identity"]["verifiable_addresses"]}
        assert snapshot.verifiable_addresses is not ABSENT
        for address in snapshot.verifiable_addresses:
            assert {"verified_at": None, **address.to_kratos()} == {
                **sent[str(address.id)],
                "verified_at": cut(sent[str(address.id)].get("verified_at")),
            }


def cut(time: str | None) -> str | None:
    """The time at microseconds, as a later call of Kratos would write it."""
    return None if time is None else f"{time.removesuffix('Z')[:26].rstrip('0')}Z"


def right_when(keep_newer_only: bool, snapshots: list[Identity]) -> int:
    """How many of the 200 a table is right about that keeps one call of each person."""
    kept: dict[object, Identity] = {}
    for snapshot in snapshots:
        before = kept.get(snapshot.id)
        if before is None or not keep_newer_only or is_newer(snapshot, before):
            kept[snapshot.id] = snapshot
    fresh = ((KratosIdentity.seen(kept[t.id], at=NOON, cause=cause()), t) for t in LISTING)
    return sum(differences(copy, truth) == [] for copy, truth in fresh)


def is_newer(one: Identity, other: Identity) -> bool:
    assert one.updated_at not in {ABSENT, None}
    assert other.updated_at not in {ABSENT, None}
    return one.updated_at > other.updated_at  # type: ignore[operator]  # asserted above


ANY_ORDER = [Random(seed).sample(CALLS, len(CALLS)) for seed in range(5)]


def test_dropping_what_is_not_newer_loses_people_even_in_order() -> None:
    """The figures stand in the README."""
    right = [right_when(True, calls) for calls in ANY_ORDER]
    assert right_when(True, CALLS) == 113
    assert (min(right), max(right)) == (142, 158)


def test_keeping_the_last_call_loses_people_when_calls_overtake_one_another() -> None:
    """The figures stand in the README."""
    right = [right_when(False, calls) for calls in ANY_ORDER]
    assert right_when(False, CALLS) == 200
    assert (min(right), max(right)) == (70, 89)
