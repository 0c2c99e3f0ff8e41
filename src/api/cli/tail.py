"""`kratos-sync tail`: events and attempts as they happen, without anything of a person but ids."""

from collections.abc import Iterator
from typing import Any, Final

import click

from kratos_sync.api.amounts import duration
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import Line, Styled, echo, echo_json
from kratos_sync.api.cli.process import command_container
from kratos_sync.api.cli.watching import look_again, until_ctrl_c
from kratos_sync.api.timeline import DEAD_LETTER
from kratos_sync.application.activity import NewActivity, Tail
from kratos_sync.application.ports.activity import (
    FAILURES,
    OUTCOMES,
    ActivityFilter,
    SeenAttempt,
    SeenEvent,
)

LOOK_SECONDS: Final = 1.0
STYLES: Final = {"succeeded": "green", "failed": "yellow", "gave_up": "bold red"}
CUT: Final = "… more than can be shown"


@click.command()
@options.consumer(help="Only attempts of this consumer.")
@click.option("--event", metavar="NAME", help="Only this event, and attempts of it.")
@click.option(
    "--outcome", type=click.Choice(OUTCOMES), multiple=True, help="Only attempts that ended so."
)
@click.option("--failed", is_flag=True, help="Only attempts that failed, the last ones included.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line, for machines.")
def tail(
    consumer: str | None, event: str | None, outcome: tuple[str, ...], failed: bool, as_json: bool
) -> None:
    """Show events and attempts as they happen, from now on until Ctrl-C.

    It looks once a second at what is new, and shows ids, names, outcomes and types of errors; no
    traits, addresses or error texts.
    """
    wanted = ActivityFilter(consumer, event, {*outcome, *(FAILURES if failed else ())})
    show = show_json if as_json else show_lines
    with until_ctrl_c(), command_container(migrated=False) as container:
        if consumer is not None:
            options.known_consumer(container.subscriptions(), consumer)
        following = Tail(container.activity(), wanted)
        look_again(following.look, show, lambda why: echo(why, err=True), LOOK_SECONDS)


def show_lines(found: NewActivity) -> None:
    """Print a line for each event and attempt."""
    echo(*lines(found))


def show_json(found: NewActivity) -> None:
    """Print an object for each event and attempt."""
    if found.is_cut:
        echo_json({"kind": "cut"})
    for seen in found.seen:
        echo_json(to_json(seen))


def to_json(seen: SeenEvent | SeenAttempt) -> dict[str, Any]:
    """Return the object that `docs/reference/json.md` describes."""
    if isinstance(seen, SeenEvent):
        return {
            "kind": "event",
            "at": seen.recorded_at,
            "event_id": seen.id,
            "event": seen.name,
            "identity_id": seen.identity_id,
            "source": seen.source,
        }
    return {
        "kind": "attempt",
        "at": seen.ended_at,
        "event_id": seen.event_id,
        "event": seen.event,
        "identity_id": seen.identity_id,
        "consumer": seen.consumer,
        "attempt": seen.number,
        "outcome": seen.outcome,
        "seconds": seen.duration,
        "error_type": seen.error_type,
    }


def lines(found: NewActivity) -> Iterator[Line]:
    """Yield what is new, a line each."""
    if found.is_cut:
        yield Styled(CUT, "dim")
    for seen in found.seen:
        if isinstance(seen, SeenEvent):
            yield (
                f"{seen.recorded_at:%H:%M:%S}  {seen.name}  event {seen.id}"
                f"  identity {seen.identity_id}  ({seen.source})"
            )
        else:
            yield _attempt(seen)


def _attempt(seen: SeenAttempt) -> Line:
    word = DEAD_LETTER if seen.outcome == "gave_up" else seen.outcome
    outcome = Styled(word, STYLES.get(seen.outcome, "cyan"))
    number = f"attempt {seen.number}, {duration(seen.duration)}" if seen.number else ""
    words = [seen.event or "(removed)", f"event {seen.event_id}", number, seen.error_type or ""]
    return [
        f"{seen.ended_at:%H:%M:%S}  {seen.consumer}  ",
        outcome,
        "".join(f"  {word}" for word in words if word),
    ]
