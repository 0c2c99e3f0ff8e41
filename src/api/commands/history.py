"""`kratos-sync history`, and the JSON that ``--json`` prints.

Durations are seconds, times ISO 8601 in UTC; keys are only ever added:

    {"identity_id": "…", "at": "…",
     "identity": {"state": "active", "version": 3, "created_at": "…", "updated_at": "…",
                  "deleted_at": null, "synced_at": "…", "forgotten_at": null},
     "erasure": null,
     "recorded": 1,
     "events": [{"id": "…", "name": "kratos_identity.updated", "source": "webhook",
                 "occurred_at": "…", "recorded_at": "…", "erased_at": null,
                 "deliveries": [{"consumer": "SyncKratosIdentity",
                                 "attempts": [{"number": 1, "outcome": "failed",
                                               "started_at": "…", "duration_seconds": 0.012,
                                               "error_type": "KeyError", "error": null}],
                                 "outstanding": {"attempts": 1, "due_at": "…", "leased": false,
                                                 "failed_at": null, "error_type": "KeyError",
                                                 "error": null}}]}]}

``identity`` is null while there is no copy; ``recorded`` counts all events of the identity, also
those that ``--limit`` leaves out. For a person who was erased ``erasure`` is
``{"asked_at": "…", "erased_at": "…", "by": "ada", "reason": "…"}``.
``outstanding`` is null once the delivery is done; with ``failed_at`` it is a dead letter.
``error`` is always null without ``--verbose``: it may quote personal data. With the outcomes
``retried`` and ``discarded`` it says who decided that, and why.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import click

from api.commands.history_report import print_history
from api.commands.process import expected_errors, opened_container
from api.commands.quoting import echo_json
from api.commands.units import iso, seconds
from application.ports.erasures import Erasure
from application.ports.history import (
    DECISIONS,
    Attempt,
    Delivery,
    IdentityHistory,
    Outstanding,
    error_type,
)


@click.command()
@click.argument("identity_id", metavar="ID", type=click.UUID)
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=200,
    show_default=True,
    help="The newest so many events.",
)
@click.option("--verbose", is_flag=True, help="Whole errors: they may quote personal data.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def history(identity_id: UUID, limit: int, verbose: bool, as_json: bool) -> None:
    """Tell what happened to the identity ID: every event, and what each consumer did with it."""
    with opened_container(migrated=False) as container, expected_errors():
        found = container.history().of(identity_id, limit)
    if found is None:
        raise click.ClickException(f"Nothing is known of an identity {identity_id}.")
    if as_json:
        echo_json(to_json(found, verbose))
    else:
        print_history(found, verbose)


def to_json(history: IdentityHistory, verbose: bool) -> dict[str, Any]:
    """Give the object that the module's docstring shows."""
    identity = history.identity
    return {
        "identity_id": str(history.identity_id),
        "at": iso(history.at),
        "identity": identity
        and {
            "state": identity.state,
            "version": identity.version,
            "created_at": iso(identity.created_at),
            "updated_at": iso(identity.updated_at),
            "deleted_at": iso(identity.deleted_at),
            "synced_at": iso(identity.synced_at),
            "forgotten_at": iso(identity.forgotten_at),
        },
        "erasure": history.erasure and erasure_json(history.erasure),
        "recorded": history.recorded,
        "events": [
            {
                "id": str(event.id),
                "name": event.name,
                "source": event.source,
                "occurred_at": iso(event.occurred_at),
                "recorded_at": iso(event.recorded_at),
                "erased_at": iso(event.erased_at),
                "deliveries": [delivery_json(delivery, verbose) for delivery in event.deliveries],
            }
            for event in history.events
        ],
    }


def erasure_json(erasure: Erasure) -> Mapping[str, Any]:
    """Give ``erasure`` as the module's docstring shows it."""
    return {
        "asked_at": iso(erasure.asked_at),
        "erased_at": iso(erasure.erased_at),
        "by": erasure.by,
        "reason": erasure.reason,
    }


def delivery_json(delivery: Delivery, verbose: bool) -> Mapping[str, Any]:
    """Give one of ``deliveries`` as the module's docstring shows it."""
    return {
        "consumer": delivery.consumer,
        "attempts": [_attempt(attempt, verbose) for attempt in delivery.attempts],
        "outstanding": delivery.outstanding and _outstanding(delivery.outstanding, verbose),
    }


def _attempt(attempt: Attempt, verbose: bool) -> Mapping[str, Any]:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "started_at": iso(attempt.started_at),
        "duration_seconds": seconds(attempt.duration),
        **_attempt_error(attempt, verbose),
    }


def _outstanding(outstanding: Outstanding, verbose: bool) -> Mapping[str, Any]:
    return {
        "attempts": outstanding.attempts,
        "due_at": iso(outstanding.due_at),
        "leased": outstanding.leased,
        "failed_at": iso(outstanding.failed_at),
        **_error(outstanding.last_error, verbose),
    }


def _attempt_error(attempt: Attempt, verbose: bool) -> Mapping[str, Any]:
    if attempt.outcome in DECISIONS:
        return {"error_type": None, "error": attempt.error}
    return _error(attempt.error, verbose)


def _error(error: str | None, verbose: bool) -> Mapping[str, Any]:
    return {
        "error_type": None if error is None else error_type(error),
        "error": error if verbose else None,
    }
