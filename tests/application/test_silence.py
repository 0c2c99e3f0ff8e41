"""When a hook that used to be heard is silent."""

from datetime import timedelta

from kratos_sync.application.missed_webhooks import SilentHook, silent_hooks
from kratos_sync.application.ports.hook_log import HookActivity
from tests.domain.people import NOON

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def hook(label: str, *, every: timedelta, silent_for: timedelta, calls: int = 31) -> HookActivity:
    last = NOON - silent_for
    return HookActivity(label, last - (calls - 1) * every, last, calls)


BUSY = hook("login", every=HOUR, silent_for=HOUR)


def test_where_nothing_was_ever_heard_nothing_is_silent() -> None:
    assert silent_hooks([], NOON) == []


def test_a_hook_is_silent_after_ten_of_its_usual_gaps() -> None:
    assert silent_hooks([BUSY, hook("settings", every=DAY, silent_for=10 * DAY)], NOON) == []
    silent = hook("settings", every=DAY, silent_for=11 * DAY)
    assert silent_hooks([BUSY, silent], NOON) == [SilentHook("settings", NOON - 11 * DAY, DAY)]


def test_a_quiet_weekend_is_no_silence() -> None:
    assert silent_hooks([BUSY, hook("settings", every=HOUR, silent_for=2 * DAY)], NOON) == []


def test_of_a_hook_that_was_seldom_called_nobody_knows_what_is_usual() -> None:
    assert (
        silent_hooks([BUSY, hook("recovery", every=HOUR, silent_for=30 * DAY, calls=19)], NOON)
        == []
    )


def test_when_nobody_is_heard_it_is_said_once() -> None:
    both = [hook(label, every=HOUR, silent_for=4 * DAY, calls=121) for label in ("a", "b")]
    (silence,) = silent_hooks(both, NOON)
    assert (silence.label, silence.last_at) == (None, NOON - 4 * DAY)
    assert timedelta() < silence.usual_gap < HOUR


def test_while_nobody_is_heard_for_a_while_no_hook_is_blamed() -> None:
    night = 2 * DAY
    both = [
        hook(label, every=HOUR, silent_for=night + age)
        for label, age in zip("ab", (HOUR, DAY), strict=True)
    ]
    assert silent_hooks(both, NOON) == []
