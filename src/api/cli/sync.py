"""`kratos-sync sync ID…`, and the JSON that ``--json`` prints.

One object; keys are only ever added:

    {"identities": [{"id": "…", "outcome": "updated", "event_id": "…", "problem": null}],
     "not_asked": [], "consumed": true}

``outcome`` is one of updated, same, gone, unknown (to Kratos and to us), forgotten (somebody had
the person deleted or erased here) and refused, with its ``problem``. ``event_id`` is null where
there was nothing to record, and ``consumed`` where ``--wait`` was not given.
"""

import sys
import time
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import click

from kratos_sync.api.cli.options import amount
from kratos_sync.api.cli.output import echo, echo_json
from kratos_sync.api.cli.process import expected_errors, opened_container
from kratos_sync.application.ports.kratos import (
    MOST_AT_ONCE,
    KratosNotConfigured,
    KratosUnavailable,
    SyncedIdentities,
    SyncOutcome,
    SyncResult,
)
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.application.sync import SyncIdentities

WAIT_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.05
LONGEST_LIST: Final = 1_000_000
IN_WORDS: Final = {
    SyncOutcome.UPDATED: "updated",
    SyncOutcome.UNCHANGED: "the same as here",
    SyncOutcome.DELETED: "gone",
    SyncOutcome.UNKNOWN: "unknown to Kratos and to us",
    SyncOutcome.ERASED: "forgotten here, and left so",
    SyncOutcome.REFUSED: "refused",
}


@click.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--wait", is_flag=True, help=f"Until it is consumed, {WAIT_SECONDS:.0f} s at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def sync(*, ids: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Ask Kratos about these identities now (- reads ids from stdin), and record what it says.

    Every consumer hears it. An identity that Kratos no longer has is gone here too. Exits with 1
    if Kratos is away or refused to tell, or if with --wait not everything was consumed.
    """
    wanted = _ids(ids)
    with opened_container() as container, expected_errors():
        try:
            kratos = container.kratos_admin()
        except KratosNotConfigured as error:
            raise click.UsageError(f"{error}: where is Kratos' Admin API?") from None
        identities = container.synced_identities()
        asked: list[SyncResult] = []
        problem = None
        try:
            for each in SyncIdentities(kratos, identities, container.wake_relay()).run(wanted):
                asked.append(each)
                if not as_json:
                    echo(_in_words(each))
        except KratosUnavailable as error:
            problem = f"{error}."
        except ConcurrencyConflict:
            problem = "PostgreSQL was too busy."
        waited = _await_consumers(identities, asked) if wait else None
    if as_json:
        echo_json(_to_json(wanted, asked, (waited is None) if wait else None))
    if problem is not None:
        left = amount(len(wanted) - len(asked), "identity", "identities")
        raise click.ClickException(f"{problem} {left} not asked for.")
    if any(each.outcome is SyncOutcome.REFUSED for each in asked):
        raise click.ClickException("Kratos refused to tell of some.")
    if waited:
        raise click.ClickException(waited)


def _ids(given: Sequence[str]) -> list[UUID]:
    words = [word for each in given for word in (_from_stdin() if each == "-" else [each])]
    ids = list(dict.fromkeys(_id(word) for word in words))
    if not 0 < len(ids) <= MOST_AT_ONCE:
        raise click.UsageError(
            f"{amount(len(ids), 'id')}: give 1 to {MOST_AT_ONCE}. `reconcile` compares everybody."
        )
    return ids


def _from_stdin() -> list[str]:
    return sys.stdin.read(LONGEST_LIST).split()


def _id(word: str) -> UUID:
    try:
        identity_id = UUID(word)
    except ValueError:
        raise click.UsageError(f"{word!r} is no UUID.") from None
    if identity_id.int == 0:
        raise click.UsageError("an identity's id is not all zeros.")
    return identity_id


def _await_consumers(identities: SyncedIdentities, asked: Sequence[SyncResult]) -> str | None:
    """Wait until nothing is pending of what was recorded; give the problem if that takes long."""
    event_ids = [each.event_id for each in asked if each.event_id is not None]
    until = time.monotonic() + WAIT_SECONDS
    while (pending := identities.count_pending(event_ids)).pending:
        if time.monotonic() > until:
            left = amount(pending.pending, "delivery", "deliveries")
            return f"{left} not consumed yet: is a worker running? `kratos-sync status` tells."
        time.sleep(LOOK_SECONDS)
    if pending.dead:
        left = amount(pending.dead, "delivery", "deliveries")
        return f"{left} failed for good: `kratos-sync failed list` tells."
    return None


def _in_words(asked: SyncResult) -> str:
    said = f"{asked.identity_id}  {IN_WORDS[asked.outcome]}"
    return said if asked.problem is None else f"{said}: {asked.problem}"


def _to_json(
    wanted: Sequence[UUID], asked: Sequence[SyncResult], consumed: bool | None
) -> dict[str, object]:
    done = {each.identity_id for each in asked}
    return {
        "identities": [
            {
                "id": str(each.identity_id),
                "outcome": each.outcome,
                "event_id": each.event_id and str(each.event_id),
                "problem": each.problem,
            }
            for each in asked
        ],
        "not_asked": [str(identity_id) for identity_id in wanted if identity_id not in done],
        "consumed": consumed,
    }
