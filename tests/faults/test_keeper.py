"""The keeper starts again what has died, and nothing while it rests."""

import threading

from tests.faults.keeper import LOOK_SECONDS, Keeper
from tests.waiting import until


class Mortal:
    """Something that can die."""

    def __init__(self) -> None:
        self.lives = 0
        self._alive = threading.Event()

    def is_alive(self) -> bool:
        return self._alive.is_set()

    def start(self) -> None:
        self.lives += 1
        self._alive.set()

    def die(self) -> None:
        self._alive.clear()


def test_what_has_died_is_started_again() -> None:
    mortal = Mortal()
    with Keeper("it", mortal) as keeper:
        until(lambda: mortal.lives == 1)
        mortal.die()
        until(lambda: mortal.lives == 2)
        assert keeper.starts == 2


def test_nothing_is_started_while_it_rests() -> None:
    mortal = Mortal()
    with Keeper("it", mortal) as keeper:
        until(mortal.is_alive)
        with keeper.resting():
            mortal.die()
            threading.Event().wait(4 * LOOK_SECONDS)
            assert mortal.lives == 1
        until(lambda: mortal.lives == 2)
