"""`kratos-sync failed list`, and the JSON that ``--json`` prints.

Times are ISO 8601 in UTC; keys are only ever added:

    {"at": "…", "dead_letters": 1204, "groups_in_all": 1,
     "groups": [{"consumer": "SendWelcomeEmail", "exception": "smtplib.SMTPServerDisconnected",
                 "shape": "Connection unexpectedly closed", "dead_letters": 1204,
                 "first_failed_at": "…", "last_failed_at": "…",
                 "example_event_id": "…", "example_error": null}]}

``shape`` is the message without what differs from one event to the next; null where it was not
kept. With ``--each``:

    {"at": "…", "dead_letters": 1204,
     "newest": [{"event_id": "…", "consumer": "SendWelcomeEmail", "event": "identity.registered",
                 "identity_id": "…", "attempts": 12, "failed_at": "…",
                 "exception": "smtplib.SMTPServerDisconnected",
                 "shape": "Connection unexpectedly closed", "error": null}]}

``event`` is null where the event is no longer in the ledger. ``example_error`` and ``error`` are
always null without ``--verbose``: they may quote personal data.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from api.commands.failed.filters import Since, filters
from api.commands.failed.report import print_each, print_groups
from api.commands.process import expected_errors, opened_container
from api.commands.quoting import echo_json
from api.commands.times import resolved
from api.commands.units import iso
from application.ports.dead_letters import DeadLetter, DeadLetterFilter, DeadLetterGroups


@click.command("list")
@filters
@click.option("--each", is_flag=True, help="Every dead letter by itself, the newest first.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="The largest so many groups, or the newest so many dead letters.",
)
@click.option("--verbose", is_flag=True, help="Whole errors: they may quote personal data.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def list_(
    *,
    consumer: str | None,
    event: str | None,
    exception: str | None,
    since: Since,
    each: bool,
    limit: int,
    verbose: bool,
    as_json: bool,
) -> None:
    """List what failed: grouped by consumer, exception and message, the largest group first."""
    with opened_container(migrated=False) as container, expected_errors():
        dead_letters = container.dead_letters()
        at = dead_letters.now()
        wanted = DeadLetterFilter(None, consumer, event, exception, resolved(since, at), at)
        if each:
            newest, in_all = dead_letters.newest(wanted, limit), dead_letters.count(wanted)
            if as_json:
                echo_json(each_json(newest, in_all, at, verbose))
            else:
                print_each(newest, in_all, at, verbose)
        else:
            groups = dead_letters.groups(wanted, limit)
            if as_json:
                echo_json({"at": iso(at), **groups_json(groups, verbose)})
            else:
                print_groups(groups, at, verbose)


def groups_json(found: DeadLetterGroups, verbose: bool) -> dict[str, Any]:
    """Give the groups as the module's docstring shows them."""
    return {
        "dead_letters": found.dead_letters,
        "groups_in_all": found.groups_in_all,
        "groups": [
            {
                "consumer": group.consumer,
                "exception": group.exception,
                "shape": group.shape,
                "dead_letters": group.dead_letters,
                "first_failed_at": iso(group.first_failed_at),
                "last_failed_at": iso(group.last_failed_at),
                "example_event_id": str(group.example),
                "example_error": group.example_error if verbose else None,
            }
            for group in found.groups
        ],
    }


def each_json(
    newest: Sequence[DeadLetter], in_all: int, at: datetime, verbose: bool
) -> dict[str, Any]:
    """Give the object that ``--each`` prints."""
    return {
        "at": iso(at),
        "dead_letters": in_all,
        "newest": [
            {
                "event_id": str(letter.event_id),
                "consumer": letter.consumer,
                "event": letter.event,
                "identity_id": str(letter.identity_id),
                "attempts": letter.attempts,
                "failed_at": iso(letter.failed_at),
                "exception": letter.exception,
                "shape": letter.shape,
                "error": letter.error if verbose else None,
            }
            for letter in newest
        ],
    }
