"""`kratos-sync erase`, and the JSON that ``--json`` prints.

Keys are only ever added:

    {"identity_id": "…", "dry_run": false, "by": "ada", "reason": "asked by letter",
     "kratos": "gone",
     "found": {"kratos_identities": 1, "events": 12, "deliveries": 1, "attempts": 3},
     "erased": {"events": 12, "deliveries": 1, "texts": 3}, "completed": true}

``kratos`` is ``gone``, ``there`` or ``not asked``. ``found`` counts rows before, by table:
``kratos_identities`` is 1 while there is more than a tombstone, ``attempts`` are those that failed.
With ``dry_run`` nothing was erased. ``completed`` is false where some of it is left to a relay.
"""

from typing import Final
from uuid import UUID

import click

from kratos_sync.api.cli.options import amount, confirm, moment, operator_name
from kratos_sync.api.cli.output import HarmlessConsole, echo, echo_json
from kratos_sync.api.cli.process import expected_errors, opened_container
from kratos_sync.application.erase import Erase, StillInFlight
from kratos_sync.application.ports.deletions import Erasable, Erased
from kratos_sync.application.ports.kratos import KratosError, KratosNotConfigured
from kratos_sync.application.ports.unit_of_work import ConcurrencyConflict
from kratos_sync.infrastructure.container import Container

GONE: Final = "gone"
THERE: Final = "there"
NOT_ASKED: Final = "not asked"


@click.command()
@click.argument("identity_id", metavar="ID", type=click.UUID)
@click.option("--reason", required=True, help="Why: it is kept, so let it name nobody.")
@click.option(
    "--by",
    metavar="NAME",
    callback=lambda _ctx, _param, given: operator_name(given),
    help="Who decides this; you, if not given.",
)
@click.option("--anyway", is_flag=True, help="Also if Kratos still has the identity.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
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
    """Erase everything that is recorded of the identity ID; that it was erased stays.

    Traits, addresses and metadata, what events say, and errors' texts. Consumers hear
    IdentityDeleted. What comes later about the person is erased by the relay. Kratos is another
    matter: `kratos-sync delete ID --erase` deletes there too.
    """
    if not reason.strip():
        raise click.UsageError("--reason: say why, it is kept.")
    with opened_container() as container, expected_errors():
        erasures = container.erasures()
        found = erasures.erasable(identity_id)
        if not found.is_known:
            raise click.ClickException(f"Nothing is known of an identity {identity_id}.")
        kratos = _ask_kratos(container, identity_id, anyway)
        echo(_plan(identity_id, found, kratos), err=as_json)
        erased, left = Erased(), None
        if not dry_run:
            confirm("Erase it for good?", yes)
            process = Erase(erasures, container.wake_relay())
            erased, left = _erase(process, identity_id, by, reason.strip())
    if as_json:
        echo_json(
            {
                "identity_id": str(identity_id),
                "dry_run": dry_run,
                "by": by,
                "reason": reason.strip(),
                "kratos": kratos,
                "found": _counts(found),
                "erased": {
                    "events": erased.events,
                    "deliveries": erased.deliveries,
                    "texts": erased.texts,
                },
                "completed": left is None and not dry_run,
            }
        )
    else:
        echo("A dry run: nothing was erased." if dry_run else told(erased))
    if left:
        raise click.ClickException(left)


def told(erased: Erased) -> str:
    """Say what was erased."""
    events, deliveries = (
        amount(erased.events, "event"),
        amount(erased.deliveries, "delivery", "deliveries"),
    )
    return (
        f"Erased: what {events} said, {amount(erased.texts, 'text')} of errors;"
        f" {deliveries} had nothing left to say."
    )


def _ask_kratos(container: Container, identity_id: UUID, anyway: bool) -> str:
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
            "Kratos still has this identity, and what it has would come back with the next login:"
            f" `kratos-sync delete {identity_id} --erase` deletes it there too."
            " Say --anyway to forget it here and not there."
        )
    return THERE


def _erase(process: Erase, identity_id: UUID, by: str, reason: str) -> tuple[Erased, str | None]:
    console = HarmlessConsole(stderr=True)
    erased = Erased()
    try:
        with console.status("Erasing…") as line:
            for erased in process.run(identity_id, by=by, reason=reason):
                line.update(told(erased))
    except StillInFlight as error:
        return erased, f"Not all of it: {error}; a relay erases the rest."
    except ConcurrencyConflict as error:
        return erased, f"PostgreSQL was too busy ({error}): try again."
    return erased, None


def _counts(found: Erasable) -> dict[str, int]:
    return {
        "kratos_identities": found.kratos_identities,
        "events": found.events,
        "deliveries": found.deliveries,
        "attempts": found.attempts,
    }


def _plan(identity_id: UUID, found: Erasable, kratos: str) -> str:
    counted = ", ".join(f"{number:,} in {table}" for table, number in _counts(found).items())
    said = f"Of identity {identity_id} there is: {counted}."
    if found.erasure:
        said += f" It was erased before ({moment(found.erasure.asked_at)})."
    if kratos == THERE:
        said += " Kratos has it still, and is left as it is."
    return said
