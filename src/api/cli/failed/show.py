"""`kratos-sync failed show`, and the JSON that ``--json`` prints.

Times are ISO 8601 in UTC; keys are only ever added:

    {"event": {"id": "…", "name": "identity.registered", "identity_id": "…", "source": "webhook",
               "occurred_at": "…", "recorded_at": "…", "erased_at": null},
     "deliveries": […]}

The deliveries are as in `kratos-sync history`, always with their errors, which may quote personal
data. With ``--payload`` the event has a ``payload``, the JSON that was recorded.
"""

import json
from collections.abc import Iterator, Sequence
from uuid import UUID

import click
from rich.text import Text

from kratos_sync.api.cli.failed.listing import consumer_option
from kratos_sync.api.cli.history import attempt_line, delivery_json, outstanding_line
from kratos_sync.api.cli.options import iso, moment
from kratos_sync.api.cli.output import echo_json, indented, uncut_console
from kratos_sync.api.cli.process import expected_errors, opened_container
from kratos_sync.application.ports.dead_letters import DeliveredEvent
from kratos_sync.application.ports.history import DECISIONS, Attempt, Delivery


@click.command()
@click.argument("event_id", metavar="EVENT_ID", type=click.UUID)
@consumer_option
@click.option("--payload", is_flag=True, help="What the event says, too: that is personal data.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def show(event_id: UUID, consumer: str | None, payload: bool, as_json: bool) -> None:
    """Show the event EVENT_ID: every attempt of its deliveries, and the last traceback.

    Errors and tracebacks may quote personal data.
    """
    with opened_container(migrated=False) as container, expected_errors():
        dead_letters = container.dead_letters()
        event, at = dead_letters.event(event_id), dead_letters.now()
    if event is None:
        raise click.ClickException(f"There is no event {event_id}.")
    deliveries = [each for each in event.deliveries if consumer in {None, each.consumer}]
    if consumer is not None and not deliveries:
        raise click.ClickException(f"{consumer} has had nothing to do with the event {event_id}.")
    if as_json:
        echo_json(_to_json(event, deliveries, payload))
        return
    out = uncut_console()
    for line in _head(event, payload):
        out.print(line)
    for delivery in deliveries:
        out.print()
        out.print(delivery.consumer, style="bold")
        for attempt in delivery.attempts:
            for line in _attempt(attempt):
                out.print(line)
        if owed := delivery.outstanding:
            out.print(outstanding_line(owed, at))
        if error := _last_error(delivery):
            out.print("  The last error:")
            for quoted in indented(error, 4):
                out.print(quoted)


def _to_json(
    event: DeliveredEvent, deliveries: Sequence[Delivery], payload: bool
) -> dict[str, object]:
    return {
        "event": {
            "id": str(event.id),
            "name": event.name,
            "identity_id": str(event.identity_id),
            "source": event.source,
            "occurred_at": iso(event.occurred_at),
            "recorded_at": iso(event.recorded_at),
            "erased_at": iso(event.erased_at),
            **({"payload": json.loads(event.payload)} if payload else {}),
        },
        "deliveries": [delivery_json(delivery, verbose=True) for delivery in deliveries],
    }


def _head(event: DeliveredEvent, payload: bool) -> Iterator[Text | str]:
    yield Text(f"Event {event.id}  {event.name}", style="bold")
    yield f"  about identity {event.identity_id}, from {event.source}"
    yield f"  occurred {moment(event.occurred_at)}, recorded {moment(event.recorded_at)}"
    if event.erased_at:
        yield f"  erased {moment(event.erased_at)}: nothing of what it said is left"
    elif payload:
        yield "  The payload:"
        yield from indented(json.dumps(json.loads(event.payload), indent=2, ensure_ascii=False), 4)
    if not event.deliveries:
        yield "  nobody was subscribed to it"


def _attempt(attempt: Attempt) -> Iterator[Text]:
    yield attempt_line(attempt)
    # A traceback ends with what the type alone does not tell.
    if attempt.error and attempt.outcome not in DECISIONS:
        said = attempt.error.rstrip().splitlines()[-1].strip()
        yield Text(f"        {said}", style="dim")


def _last_error(delivery: Delivery) -> str | None:
    if delivery.outstanding:
        return delivery.outstanding.last_error
    failed = [each.error for each in delivery.attempts if each.outcome not in DECISIONS]
    return next((error for error in reversed(failed) if error), None)
