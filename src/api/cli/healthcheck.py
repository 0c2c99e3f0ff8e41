"""`kratos-sync healthcheck`, as the help knows it; `kratos_sync.api.entry` answers most calls."""

import click

from kratos_sync.api.cli.output import echo
from kratos_sync.api.healthcheck import PROCESSES, Question, answer_to


@click.command()
@click.argument("process", type=click.Choice(PROCESSES), required=False)
@click.option("--port", type=click.IntRange(1, 65535), help="Port; METRICS_PORT if not given.")
@click.option("--live", is_flag=True, help="Ask only whether it works, not whether it is of use.")
def healthcheck(process: str | None, port: int | None, live: bool) -> None:
    """Ask a process on this machine how it is: exit code 0 if it is ready, else 1.

    It is ready if it works, and its database and broker answer. With PROCESS it has to be that one.
    """
    is_well, line = answer_to(Question(process, port, live))
    if not is_well:
        raise click.ClickException(line)
    echo(line)
