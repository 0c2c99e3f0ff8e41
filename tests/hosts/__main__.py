"""`python -m tests.hosts`: run the service on several hosts, and let them fail."""

import secrets
import signal
import sys
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from kratos_sync.infrastructure.embedded import owned
from tests.faults.report import calls
from tests.hosts import report
from tests.hosts.faults import FAULTS
from tests.hosts.run import run
from tests.hosts.stage import set_stage
from tests.namespaces import why_not

FOLDER: Final = Path(__file__).parents[2] / ".data" / "hosts"
PER_SECOND: Final = 75.0
WRONG_SHOWN: Final = 20


@click.command()
@click.option("--seed", type=int, help="Sends the same calls again; a new one if not given.")
@click.option("--only", multiple=True, type=click.Choice(list(FAULTS)), help="These faults alone.")
@click.option("--rate", type=float, default=PER_SECOND, show_default=True, help="Webhooks/s.")
def main(*, seed: int | None, only: tuple[str, ...], rate: float) -> None:
    """Do faults to hosts and the network between them, and check from outside what became of it.

    Exits with 1 if anything was lost, done twice, left pending, or not well again in time.
    """
    if reason := why_not():
        raise click.ClickException(f"{reason}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console(highlight=False, soft_wrap=True)
    seed = secrets.randbelow(10_000) if seed is None else seed
    faults = {name: FAULTS[name] for name in only} or FAULTS
    FOLDER.mkdir(parents=True, exist_ok=True)
    with owned(FOLDER, "the suite of several hosts"), set_stage(FOLDER, rate, seed) as stage:
        result = run(stage, faults, console.print)
    console.print()
    console.print(report.table(result))
    console.print(f"\n{report.in_markdown(result)}")
    counted = calls(result.calls)
    console.print(
        f"\n{counted['sent']} webhooks sent, {counted['accepted']} accepted,"
        f" {counted['dropped']} dropped by Kratos; repeat it with --seed {seed}"
    )
    for wrong in result.wrong[:WRONG_SHOWN]:
        console.print(f"{wrong.sort}: {wrong.what}")
    if failed := list(report.failures(result, faults)):
        console.print("\n".join(["", "It failed:", *failed]), style="bold red")
        console.print(f"What the processes wrote is in {FOLDER}.")
        sys.exit(1)


if __name__ == "__main__":
    main()
