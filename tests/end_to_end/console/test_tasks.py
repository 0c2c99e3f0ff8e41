"""What people come to the console for, each in three clicks at most, with the browser alone."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from tests.domain.people import ADA
from tests.end_to_end.console.lives import DEAD, OLD, SYNC, engine_of, live
from tests.end_to_end.console.using import SCRIPTS, Console, Person
from tests.suites.reconciling import World

MOST_CLICKS = 3


@contextmanager
def task(console: Console, name: str, start: str, *, scripts: bool) -> Iterator[Person]:
    """Somebody who begins on this page; says how many clicks and seconds it took."""
    with console.person(scripts=scripts) as person:
        person.open(start)
        began = time.monotonic()
        yield person
        seconds = time.monotonic() - began
    print(f"{name}: {person.clicks} clicks, {seconds:.1f} s")
    assert person.clicks <= MOST_CLICKS


@SCRIPTS
def test_why_is_this_persons_address_wrong(console: Console, world: World, scripts: bool) -> None:
    live(world)
    with task(console, "a wrong address", "/", scripts=scripts) as person:
        person.find(OLD)
        person.sees("ValueError", within=".timeline")
        assert person.page.url == f"{person.address}/identity/{ADA}"
        person.sees("dead letter", within=".timeline")
        person.unfold("Ask Kratos now")
        person.send(f"Sync identity {ADA}", "her address is wrong")
        person.sees("completed")


@SCRIPTS
def test_one_consumer_fails_since_the_deploy(console: Console, world: World, scripts: bool) -> None:
    live(world)
    with task(console, "a failing consumer", "/", scripts=scripts) as person:
        person.sees(f"{DEAD} dead letters", within=".attention")
        person.click(".attention a:has-text('Retry or discard')")
        person.click("td a:has-text('ValueError')")
        person.send(f"Retry one of {SYNC}", "fixed by the new release")
        person.sees("pending", within="#progress ol")
        world.consume()
        person.sees("succeeded", within="#progress ol")


@SCRIPTS
def test_erase_this_person(console: Console, world: World, scripts: bool) -> None:
    live(world)
    with task(console, "an erasure", "/failures", scripts=scripts) as person:
        person.find(OLD)
        person.page.wait_for_url(f"**/identity/{ADA}")
        person.unfold("Erase what is recorded of this person")
        person.send("Erase the", "asked by letter")
        person.sees("completed")
    left = text("SELECT count(*) FROM kratos_sync.events WHERE payload::text ~ 'ada@'")
    with engine_of(world).connect() as connection:
        assert connection.execute(left).scalar_one() == 0


@SCRIPTS
def test_a_hook_went_silent(console: Console, world: World, scripts: bool) -> None:
    live(world)
    with task(console, "a silent hook", "/", scripts=scripts) as person:
        person.sees("No webhook was received from the hook login", within=".attention")
        person.click("a:has-text('silent')")
        assert person.page.url.endswith("/kratos#hooks")
        person.sees("silent", within="tr:has-text('login')")
