"""The recorded events, copied for more people."""

import json
import re
from functools import lru_cache
from random import Random
from typing import Any
from uuid import UUID, uuid5

from tests.recorded import Call, Recording, two_hundred_lives

KEPT = 4
AN_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@lru_cache(KEPT)
def population(size: int) -> Recording:
    """The recorded lives, lived by so many people (a multiple of 200)."""
    lives = two_hundred_lives()
    calls: list[Call] = []
    listing: dict[str, Any] = {}
    for number in range(size // len(lives.listing)):

        def renamed(text: str, number: int = number) -> str:
            return AN_ID.sub(lambda found: str(uuid5(UUID(found[0]), str(number))), text)

        calls += (
            Call(call.headers, renamed(call.body.decode()).encode(), renamed(call.person)).anew()
            for call in lives.calls
        )
        people = json.loads(renamed(json.dumps(list(lives.listing.values()))))
        listing |= {person["id"]: person for person in people}
    return Recording(calls, listing)


def some_twice(calls: list[Call], count: int, seed: int) -> list[Call]:
    """So many calls: all of them, and some again, in any order."""
    random = Random(seed)  # noqa: S311
    calls = [*calls, *random.choices(calls, k=count - len(calls))]
    random.shuffle(calls)
    return calls


def people_for(events: int) -> int:
    """How many people have lived about so many events, and never more; nobody lived under 866."""
    lives = two_hundred_lives()
    return events // len(lives.calls) * len(lives.listing)
