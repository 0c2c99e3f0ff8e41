"""`kratos-sync reconcile`, and the JSON that ``--json`` prints.

One object for each reconciliation; durations are seconds, and keys are only ever added:

    {"dry_run": false, "outcome": "completed", "resumed": false, "seconds": 41.2,
     "started_at": "2026-07-01T12:00:00Z", "held": 1000000, "pages": 2000, "identities": 1000002,
     "known": 999999, "missing": 3, "stale": 12, "fields": {"traits": 12}, "unseen": 1, "gone": 1,
     "unheard": {"registration": 3, "settings": 12}, "unreadable": 0}

``outcome`` begins with `refused:` where nobody was deleted for a reason, and with `failed:` where
it did not come to its end; the same command then goes on where it stopped. ``fields`` says how many
of the stale differ in which field.
"""

from datetime import timedelta

import click

from api.commands.process import expected_errors, opened_container
from api.commands.quoting import echo, echo_json
from api.commands.reconcile_report import in_words, shown, to_json
from api.commands.reconcile_run import Outcome, Reconciler, for_ever
from api.commands.times import Interval


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would change, and in which fields.")
@click.option("--verbose", is_flag=True, help="Name every identity that differs, and the fields.")
@click.option(
    "--every",
    type=Interval(),
    metavar="TIME",
    help="For ever, so often (15min, 1h, 1d), one of however many run.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="At most so many requests a second to Kratos.",
)
@click.option(
    "--allow-deletes",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Delete up to N people; else up to 1 % of all, or 10 if that is more.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
def reconcile(
    *,
    dry_run: bool,
    verbose: bool,
    every: timedelta | None,
    rate: float | None,
    allow_deletes: int,
    as_json: bool,
) -> None:
    """Compare everybody here with Kratos' Admin API (KRATOS_ADMIN_URL), and repair what differs.

    Every difference becomes an event that all consumers hear. Who is not listed is asked for one by
    one, and only deleted if Kratos says that it has no such identity. Ctrl-C stops after the page;
    the same command goes on there. Exits with 1 if anything was refused, or it did not come to its
    end.
    """
    if every is not None and dry_run:
        raise click.UsageError("--every and --dry-run do not go together.")
    with opened_container() as container, expected_errors():
        reconciler = Reconciler(container, rate)

        def tell(outcome: Outcome) -> None:
            if as_json:
                echo_json(to_json(outcome))
            else:
                echo(*in_words(outcome).split("\n"))

        if every is not None:
            for_ever(reconciler, every, allow_deletes, tell)
            return
        show = shown(verbose, as_json)
        with reconciler.interruptions:
            outcome = reconciler.run(dry_run, allow_deletes, show)
        tell(outcome)
    if outcome.went_wrong:
        raise click.ClickException(outcome.went_wrong)
