"""`kratos-sync delete`, and the JSON that ``--json`` prints.

Keys are only ever added:

    {"identity_id": "…", "request": "…", "by": "ada", "erase": false, "waited": true,
     "deleted_here_at": "…", "awaited": [{"consumer": "SendGoodbye", "deliveries": 1,
                                          "dead_letters": 0}],
     "deleted_from_kratos": false, "failed": false, "erased": false}

``request`` is the id of the event that asks for it: `kratos-sync failed show` tells of its steps.
``awaited`` are the consumers that are not done with the identity. ``failed`` says that Kratos would
not delete it, and `kratos-sync failed retry` asks once more.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import click

from kratos_sync.api.cli.options import amount, confirm, iso, operator_name
from kratos_sync.api.cli.output import echo, echo_json
from kratos_sync.api.cli.process import expected_errors, opened_container
from kratos_sync.application.erase import watch_deletion
from kratos_sync.application.ports.deletions import DeletionProgress
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict

NOTHING_YET: Final = DeletionProgress(None, (), is_done=False, has_failed=False)


@click.command()
@click.argument("identity_id", metavar="ID", type=click.UUID)
@click.option("--erase", is_flag=True, help="In the end, erase what is recorded of it, too.")
@click.option("--wait", is_flag=True, help="Tell of each step, and end with the last.")
@click.option(
    "--timeout",
    type=click.IntRange(1, 86_400),
    default=600,
    show_default=True,
    help="Seconds to wait at most.",
)
@click.option(
    "--by",
    metavar="NAME",
    callback=lambda _ctx, _param, given: operator_name(given),
    help="Who decides this; you, if not given.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def delete(
    *,
    identity_id: UUID,
    erase: bool,
    wait: bool,
    timeout: int,
    by: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete the identity ID: here first, and in Kratos once every consumer is done with it.

    Goes on by itself, in workers, whether this command is there or not; asked for twice, it does no
    harm. With --wait exits with 1 unless it was deleted from Kratos in time.
    """
    with opened_container() as container, expected_errors():
        if container.settings().kratos_admin_url is None:
            raise click.UsageError("KRATOS_ADMIN_URL is not set: Kratos could not be asked.")
        also = " and erase what is recorded of it" if erase else ""
        confirm(f"Delete identity {identity_id} here and in Kratos{also}?", yes)
        try:
            request = container.deletions().request(identity_id, by=by, erase=erase)
            echo(f"Asked for: request {request}.", err=as_json)
            container.wake_relay()()
            seen = NOTHING_YET
            if wait:
                deletions = container.deletions()
                for seen in watch_deletion(deletions, request, timeout, until_erased=erase):
                    echo(_told(seen), err=as_json)
        except ConcurrencyConflict as error:
            raise click.ClickException(f"PostgreSQL was too busy ({error}): try again.") from None
    if as_json:
        echo_json(
            {
                "identity_id": str(identity_id),
                "request": str(request),
                "by": by,
                "erase": erase,
                "waited": wait,
                **to_json(seen),
            }
        )
    elif not wait:
        echo("Workers go on with it; `kratos-sync history` tells how far it is.")
    if wait and not (seen.is_done and (seen.is_erased or not erase)):
        raise click.ClickException(_why_not(seen))


def to_json(seen: DeletionProgress) -> Mapping[str, Any]:
    """Give how far a deletion is, as the module's docstring shows it."""
    return {
        "deleted_here_at": iso(seen.deleted_here_at),
        "awaited": [each._asdict() for each in seen.awaited],
        "deleted_from_kratos": seen.is_done,
        "failed": seen.has_failed,
        "erased": seen.is_erased,
    }


def _told(seen: DeletionProgress) -> str:
    if seen.is_done:
        return f"Deleted from Kratos{', and erased' if seen.is_erased else ''}."
    if seen.deleted_here_at is None:
        return "Not deleted here yet."
    if seen.has_failed:
        return "Deleted here; Kratos would not delete it."
    if not seen.awaited:
        return "Deleted here, every consumer is done with it; Kratos is next."
    return f"Deleted here; waiting for {_names(seen)}."


def _names(seen: DeletionProgress) -> str:
    return ", ".join(
        f"{each.consumer} ({amount(each.dead_letters, 'dead letter')})"
        if each.dead_letters
        else each.consumer
        for each in seen.awaited
    )


def _why_not(seen: DeletionProgress) -> str:
    if seen.has_failed:
        return "Kratos would not delete it: see `kratos-sync failed list`, and retry."
    if seen.is_held:
        return f"Held by {_names(seen)}: once they are decided about it goes on by itself."
    if seen.is_done:
        return "Deleted from Kratos, and not erased yet: a relay does it."
    if seen.deleted_here_at is None:
        return "Not deleted here yet: is a worker running? Once one is, it goes on by itself."
    return "Not deleted from Kratos yet; it goes on by itself."
