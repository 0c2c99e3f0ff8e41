"""`kratos-sync erase`: erases the personal data recorded of an identity."""

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from kratos_sync.api.amounts import amount, moment
from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import echo, echo_json, status_line
from kratos_sync.api.cli.process import Steps, command_container
from kratos_sync.application.operations import recorded
from kratos_sync.application.ports.deletions import Erasable, Erased
from kratos_sync.application.ports.kratos import HeldElsewhere, KratosError, KratosNotConfigured
from kratos_sync.application.ports.operations import How, OperationRequest

if TYPE_CHECKING:
    from kratos_sync.infrastructure.container import Container

GONE: Final = "gone"
THERE: Final = "there"
NOT_ASKED: Final = "not asked"


@click.command()
@options.identity_id
@options.reason
@options.by
@click.option("--anyway", is_flag=True, help="Also if Kratos still has the identity.")
@options.dry_run
@options.yes
@options.as_json
def erase(
    *,
    identity_id: UUID,
    reason: str,
    by: str,
    anyway: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase all personal data recorded of the identity ID.

    That is traits, addresses and metadata, events' payloads, and errors' texts; that it was
    erased stays recorded. Consumers receive IdentityDeleted. What is recorded of the person
    later is erased by the relay. Nothing is changed in Kratos: `kratos-sync delete ID --erase`
    deletes there too.
    """
    with command_container() as container:
        found = container.erasures().erasable(identity_id)
        if not found.is_known:
            ids = container.settings().identity_ids
            hint = "" if identity_id in ids else f": {HeldElsewhere(ids)}"
            raise click.ClickException(f"Nothing is known of an identity {identity_id}{hint}.")
        kratos = _ask_kratos(container, identity_id, anyway)
        echo(_plan(identity_id, found, kratos), err=as_json)
        erased, steps = Erased(), Steps()
        if not dry_run:
            options.confirm("Erase it for good?", yes)
            request = OperationRequest("erase", by, How.CLI, reason, identity_id)
            with (
                steps,
                status_line("Erasing…") as show,
                recorded(container.operations(), request) as operation,
            ):

                def report(so_far: Erased) -> None:
                    nonlocal erased
                    erased = so_far
                    show(_in_words(so_far))

                container.actions().erase(operation, report)
    if as_json:
        echo_json(
            {
                "identity_id": identity_id,
                "dry_run": dry_run,
                "by": by,
                "reason": reason,
                "kratos": kratos,
                **to_json(found, erased),
                "completed": not steps.ended_early and not dry_run,
            }
        )
    else:
        echo("A dry run: nothing was erased." if dry_run else _in_words(erased))
    if steps.ended_early:
        raise click.ClickException(f"{steps.ended_early}.")


def to_json(found: Erasable, erased: Erased) -> dict[str, Any]:
    """Return what was there and what was erased, as `docs/reference/json.md` describes."""
    names = ("events", "deliveries", "texts")
    return {"found": _rows(found), "erased": {name: getattr(erased, name) for name in names}}


def _rows(found: Erasable) -> dict[str, int]:
    names = ("kratos_identities", "events", "deliveries", "attempts")
    return {name: getattr(found, name) for name in names}


def _in_words(erased: Erased) -> str:
    return (
        f"Erased: the payloads of {amount(erased.events, 'event')},"
        f" {amount(erased.texts, 'error text')};"
        f" {amount(erased.deliveries, 'delivery')} removed with their payloads."
    )


def _ask_kratos(container: "Container", identity_id: UUID, anyway: bool) -> str:
    try:
        shown = container.kratos_admin().find(identity_id)
    except KratosNotConfigured:
        echo("Kratos could not be asked: KRATOS_ADMIN_URL is not set.", err=True)
        return NOT_ASKED
    except KratosError as error:
        if anyway:
            return NOT_ASKED
        raise click.ClickException(f"{error}. Say --anyway to erase without asking.") from None
    if shown is None:
        return GONE
    if not anyway:
        raise click.ClickException(
            "Kratos still has this identity, and its data would come back with the next login:"
            f" `kratos-sync delete {identity_id} --erase` deletes it there too."
            " Say --anyway to erase it here and not there."
        )
    return THERE


def _plan(identity_id: UUID, found: Erasable, kratos: str) -> str:
    counted = ", ".join(f"{number:,} in {table}" for table, number in _rows(found).items())
    plan = f"Of identity {identity_id} there is: {counted}."
    if found.erasure:
        plan += f" It was erased before ({moment(found.erasure.asked_at)})."
    if kratos == THERE:
        plan += " Kratos still has it, and is left as it is."
    return plan
