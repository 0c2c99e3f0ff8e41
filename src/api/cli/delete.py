"""`kratos-sync delete`: deletes an identity here and, once every consumer is done, in Kratos."""

from typing import Any, Final
from uuid import UUID

import click

from kratos_sync.api.amounts import amount
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import echo, echo_json
from kratos_sync.api.cli.process import command_container
from kratos_sync.application.erase import watch_deletion
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.deletions import DeletionProgress
from kratos_sync.application.ports.operations import How, OperationRequest

NOTHING_YET: Final = DeletionProgress(None, (), is_done=False, has_failed=False)


@click.command()
@options.identity_id
@click.option("--erase", is_flag=True, help="In the end, erase what is recorded of it, too.")
@click.option("--wait", is_flag=True, help="Print each step, and end with the last.")
@click.option(
    "--timeout",
    type=click.IntRange(1, 86_400),
    default=600,
    show_default=True,
    help="Seconds to wait at most.",
)
@options.by
@options.why
@options.yes
@options.as_json
def delete(
    *,
    identity_id: UUID,
    erase: bool,
    wait: bool,
    timeout: int,
    by: str,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete the identity ID, here and in Kratos.

    Here first, and in Kratos once every consumer is done with it. Workers carry it out, whether
    this command runs or not; asked for twice, it does no harm. With --wait exits with 1 unless
    it was deleted from Kratos in time.
    """
    with command_container() as container:
        has_no_url = container.settings().kratos_admin_url is None
        also = " and erase what is recorded of it" if erase else ""
        options.confirm(f"Delete identity {identity_id} here and in Kratos{also}?", yes)
        asked = OperationRequest("delete", by, How.CLI, reason, identity_id, None, {"erase": erase})
        with recorded(container.operations(), asked) as operation:
            request = container.actions().delete(operation)
        echo(f"Deletion requested: request {request}.", err=as_json)
        seen = NOTHING_YET
        if wait:
            deletions = container.deletions()
            for seen in watch_deletion(deletions, request, timeout, until_erased=erase):
                echo(_step(seen), err=as_json)
    if as_json:
        about = {"identity_id": identity_id, "request": request, "by": by, "erase": erase}
        echo_json({**about, "waited": wait, **to_json(seen)})
    elif not wait:
        echo("Workers carry it out; `kratos-sync history` shows how far it is.")
        if has_no_url:
            echo("In Kratos once a worker has KRATOS_ADMIN_URL, which is not set here.")
    if wait and not (seen.is_done and (seen.is_erased or not erase)):
        raise click.ClickException(_why_not(seen))


def to_json(seen: DeletionProgress) -> dict[str, Any]:
    """Return how far a deletion is, as `docs/reference/json.md` describes."""
    return {
        "deleted_here_at": seen.deleted_here_at,
        "awaited": [each._asdict() for each in seen.awaited],
        "deleted_from_kratos": seen.is_done,
        "failed": seen.has_failed,
        "erased": seen.is_erased,
    }


def _step(seen: DeletionProgress) -> str:
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
        f"{name} ({amount(dead, 'dead letter')})" if dead else name
        for name, _, dead in seen.awaited
    )


def _why_not(seen: DeletionProgress) -> str:
    if seen.has_failed:
        return "Kratos would not delete it: see `kratos-sync failed list`, and retry."
    if seen.is_held:
        return f"Held by {_names(seen)}: it goes on once they are retried or discarded."
    if seen.is_done:
        return "Deleted from Kratos, and not erased yet: a relay does it."
    if seen.deleted_here_at is None:
        return "Not deleted here yet: is a worker running? Once one is, it goes on by itself."
    return "Not deleted from Kratos yet (has a worker KRATOS_ADMIN_URL?); it goes on by itself."
