"""`kratos-sync sync ID…`: fetches identities from Kratos now, and records what it returns."""

import sys
import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import click

from kratos_sync.api.amounts import amount
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import echo, echo_json
from kratos_sync.api.cli.process import Steps, command_container
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.kratos import (
    MOST_AT_ONCE,
    SyncedIdentities,
    SyncOutcome,
    SyncResult,
)
from kratos_sync.application.ports.operations import How, OperationRequest

WAIT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05
LONGEST_LIST: Final = 1_000_000
IN_WORDS: Final = {
    SyncOutcome.UPDATED: "updated",
    SyncOutcome.UNCHANGED: "the same as here",
    SyncOutcome.DELETED: "deleted in Kratos",
    SyncOutcome.UNKNOWN: "unknown to Kratos and to us",
    SyncOutcome.ERASED: "erased or deleted here, and left so",
    SyncOutcome.REFUSED: "refused",
}


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--wait", is_flag=True, help=f"Wait until every consumer is done, {WAIT_SECONDS:.0f} s at most."
)
@options.by
@options.as_json
def sync(*, ids: tuple[str, ...], wait: bool, by: str, as_json: bool) -> None:
    """Fetch the identities ID... from Kratos now, and record them.

    ID is a UUID, or - to read many from stdin. Every consumer receives it. An identity that
    Kratos no longer has is deleted here too. Exits with 1 if Kratos is away or refused, or if
    with --wait not every consumer was done.
    """
    wanted = _ids(ids)
    asked: list[SyncResult] = []

    def report(each: SyncResult) -> None:
        asked.append(each)
        if not as_json:
            problem = "" if each.problem is None else f": {each.problem}"
            echo(f"{each.identity_id}  {IN_WORDS[each.outcome]}{problem}")

    with command_container() as container:
        container.kratos_admin()  # without its address nothing is recorded
        known, steps = container.synced_identities(), Steps()
        subject = wanted[0] if len(wanted) == 1 else None
        request = OperationRequest("sync", by, How.CLI, subject=subject)
        with steps, recorded(container.operations(), request, len(wanted)) as operation:
            container.actions().sync(wanted, operation, report)
        unfinished = _await_consumers(known, asked) if wait else None
    if as_json:
        echo_json(to_json(wanted, asked, (unfinished is None) if wait else None))
    if steps.ended_early:
        left = amount(len(wanted) - len(asked), "identity")
        raise click.ClickException(f"{steps.ended_early}. {left} not asked for.")
    if any(each.outcome is SyncOutcome.REFUSED for each in asked):
        raise click.ClickException("Some were refused.")
    if unfinished:
        raise click.ClickException(unfinished)


def _ids(given: Sequence[str]) -> list[UUID]:
    words: list[str] = []
    for each in given:
        words += sys.stdin.read(LONGEST_LIST).split() if each == "-" else [each]
    ids = list(dict.fromkeys(map(_id, words)))
    if not 0 < len(ids) <= MOST_AT_ONCE:
        raise click.UsageError(
            f"{amount(len(ids), 'id')}: give 1 to {MOST_AT_ONCE}. `reconcile` compares everybody."
        )
    return ids


def _id(word: str) -> UUID:
    try:
        identity_id = UUID(word)
    except ValueError:
        raise click.UsageError(f"{word!r} is no UUID.") from None
    if identity_id.int == 0:
        raise click.UsageError("an identity's id is not all zeros.")
    return identity_id


def _await_consumers(known: SyncedIdentities, asked: Sequence[SyncResult]) -> str | None:
    """Wait until no delivery of what was recorded is pending; return what is wrong, if anything."""
    event_ids = [each.event_id for each in asked if each.event_id is not None]
    deadline = time.monotonic() + WAIT_SECONDS
    while (count := known.count_pending(event_ids)).pending:
        if time.monotonic() > deadline:
            left = amount(count.pending, "delivery")
            return f"{left} still pending: is a worker running? See `kratos-sync status`."
        time.sleep(POLL_SECONDS)
    if count.dead:
        return f"{amount(count.dead, 'delivery')} failed for good: see `kratos-sync failed list`."
    return None


def to_json(
    wanted: Sequence[UUID], asked: Sequence[SyncResult], consumed: bool | None
) -> dict[str, Any]:
    """Return the document that `docs/reference/json.md` describes."""
    done = {each.identity_id for each in asked}
    return {
        "identities": [
            {
                "id": each.identity_id,
                "outcome": each.outcome,
                "event_id": each.event_id,
                "problem": each.problem,
            }
            for each in asked
        ],
        "not_asked": [identity_id for identity_id in wanted if identity_id not in done],
        "consumed": consumed,
    }
