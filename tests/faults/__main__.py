"""`python -m tests.faults`: run the fault suite."""

import os
import secrets
import signal
import sys
from pathlib import Path
from typing import get_args

import click
from rich.console import Console

from kratos_sync.infrastructure.embedded import owned
from tests.faults import report
from tests.faults.disk import can_be_full
from tests.faults.kinds import KINDS, Broker, kinds_with
from tests.faults.run import run
from tests.faults.schedule import TOGETHER, kinds_for, schedule
from tests.faults.sizes import SIZES
from tests.faults.stage import set_stage
from tests.infrastructure.bus.rabbitmq_server import program
from tests.servers.installed import MISSING

ROOT = Path(__file__).parents[2]
WRONG_SHOWN = 20


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="full", show_default=True)
@click.option("--seed", type=int, help="Repeats a run; a new one if not given.")
@click.option("--broker", type=click.Choice(get_args(Broker)), default="valkey", show_default=True)
@click.option("--only", multiple=True, type=click.Choice(list(KINDS)), help="These kinds alone.")
@click.option("--times", type=click.IntRange(1), help="Each; the size's number if not given.")
@click.option("--pooler", is_flag=True, help="Connect to PostgreSQL by way of a PgBouncer.")
def main(
    *,
    size: str,
    seed: int | None,
    broker: Broker,
    only: tuple[str, ...],
    times: int | None,
    pooler: bool,
) -> None:
    """Do faults to the running service, and check from outside what became of it.

    With a broker in memory the service is `kratos-sync all`, and the broker's faults are left out.

    Exits with 1 if anything was lost, done twice, left pending, or not well again in time.
    """
    if pooler and (reason := MISSING["pgbouncer"]()):
        raise click.ClickException(reason)
    if broker == "rabbitmq" and program() is None:
        raise click.ClickException("RabbitMQ is not installed here (rabbitmq-server)")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    console = Console(highlight=False, soft_wrap=True)
    seed = secrets.randbelow(10_000) if seed is None else seed
    known = kinds_with(broker)
    if unknown := set(only) - known.keys():
        raise click.UsageError(f"not with a broker in {broker}: {', '.join(sorted(unknown))}.")
    asked = {name: known[name] for name in only} or kinds_for(SIZES[size], known)
    kinds = {n: kind for n, kind in asked.items() if n != "database disk full" or can_be_full()}
    together = 1 if SIZES[size].alone else TOGETHER
    rounds = schedule(seed, times or SIZES[size].times, kinds, together, SIZES[size].seconds)
    folder = ROOT / ".data" / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    console.print(f"{sum(map(len, rounds))} faults in {len(rounds)} rounds, seed {seed}")
    if not can_be_full():
        console.print("Left out: database disk full. It needs prlimit, of util-linux.")
    with (
        owned(folder, "the fault suite"),
        set_stage(folder, SIZES[size], seed, broker, pooled=pooler) as stage,
    ):
        if not stage.disk.is_mounted:
            console.print("No disk can be mounted: a limit for the size of files stands in for it.")
        if SIZES[size].watches_alerts and stage.prometheus is None:
            console.print("Prometheus is not installed: alerts are not watched.")
        result = run(stage, rounds, console.print, alone=SIZES[size].alone)
        watched = stage.prometheus is not None
        starts = {name: keeper.starts for name, keeper in stage.keepers.items()}
    setting = {
        "size": size,
        "broker": broker,
        "disk_mounted": stage.disk.is_mounted,
        "starts": starts,
    }
    (ROOT / ".data" / "faults.json").write_text(report.to_json(result, seed, setting))
    lines = report.lines(result.outcomes, result.wrong, known)
    console.print()
    console.print(report.table(lines))
    counted = report.calls(result.calls)
    console.print(
        f"\n{counted['sent']} webhooks sent, {counted['accepted']} accepted,"
        f" {counted['dropped']} dropped by Kratos; {result.seconds:.0f} s;"
        f" repeat it with --seed {seed} --broker {broker}"
    )
    for wrong in result.wrong[:WRONG_SHOWN]:
        console.print(f"{wrong.sort}: {wrong.what}")
    failed = list(report.failures(lines))
    if watched:
        console.print(f"\n{report.alerts_in_markdown(lines)}")
    if watched and SIZES[size].alone:
        failed += report.without_alert(lines)
    if failed:
        console.print("\n".join(["", "It failed:", *failed]), style="bold red")
        console.print(f"What the processes wrote is in {os.path.relpath(folder)}.")
        sys.exit(1)


if __name__ == "__main__":
    main()
