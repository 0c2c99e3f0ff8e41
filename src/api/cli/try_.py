"""`kratos-sync try`: a consumer on a recorded event, with everything rolled back."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import click

from kratos_sync.api.amounts import amount
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import Line, Styled, echo, echo_json, indented
from kratos_sync.api.cli.process import command_container
from kratos_sync.application.ports.trials import NoTrial, Trial


@click.command("try")
@click.argument("consumer", metavar="NAME", shell_complete=options.consumers)
@click.argument("event_id", metavar="EVENT_ID", type=click.UUID)
@options.yes
@click.option("--verbose", is_flag=True, help="Print raised events in full: personal data.")
@options.as_json
def try_(consumer: str, event_id: UUID, *, yes: bool, verbose: bool, as_json: bool) -> None:
    """Try the consumer NAME on the recorded event EVENT_ID, and roll back.

    Prints what it would write and raise, or its traceback, which may quote personal data. Effects
    outside the database are real. Exits with 1 if the consumer would fail.
    """
    with command_container() as container:
        subscriptions = container.subscriptions()
        kind = subscriptions.consumers[options.known_consumer(subscriptions, consumer)]
        if used := container.consumers().effects_elsewhere(kind):
            options.confirm(f"{consumer} uses {used}, for real: try it?", yes)
        try:
            trial = container.trials().run(kind, event_id, subscriptions.events_of(consumer))
        except NoTrial as error:
            raise click.ClickException(f"Not tried: {error}.") from None
    if as_json:
        echo_json(to_json(trial, verbose))
    else:
        echo(*_lines(consumer, trial, verbose))
    if trial.error is not None:
        raise click.ClickException(f"{consumer} would fail. Everything was rolled back.")


def to_json(trial: Trial, verbose: bool) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    return {
        "event": trial.event.name,
        "identity_id": trial.event.subject,
        "writes": [each._asdict() for each in trial.writes],
        "raised": [
            {"name": each.name, **({"payload": each.to_json()} if verbose else {})}
            for each in trial.raised
        ],
        "error": trial.error,
        "seconds": round(trial.seconds, 3),
    }


def _lines(consumer: str, trial: Trial, verbose: bool) -> Iterator[Line]:
    yield Styled(f"{consumer} on {trial.event.name}, {trial.seconds * 1000:.0f} ms", "bold")
    if trial.error is not None:
        yield from indented(trial.error, 2)
        return
    for each in trial.writes:
        counts = {"inserted": each.inserted, "updated": each.updated, "deleted": each.deleted}
        said = ", ".join(f"{amount(n, 'row')} {what}" for what, n in counts.items() if n)
        yield f"  {each.table}: {said}"
    for event in trial.raised:
        yield f"  raises {event.name}"
        if verbose:
            yield from indented(json.dumps(event.to_json(), indent=2, ensure_ascii=False), 4)
    if not trial.writes and not trial.raised:
        yield "  writes and raises nothing"
    yield "Everything was rolled back."
