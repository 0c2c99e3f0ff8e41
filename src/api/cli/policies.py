"""`kratos-sync pause`, `resume` and `limit`: what is decided of a consumer while it runs."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click

from kratos_sync.api.cli import options
from kratos_sync.api.cli.output import echo
from kratos_sync.api.cli.process import command_container
from kratos_sync.application.actions import Actions
from kratos_sync.application.operations import RunningOperation, recorded
from kratos_sync.application.ports.operations import How, OperationRequest
from kratos_sync.application.ports.policies import InvalidRate, events_per_second

T = TypeVar("T")
consumer_name = click.argument("consumer", metavar="NAME", shell_complete=options.consumers)


@click.command()
@consumer_name
@options.reason
@options.by
def pause(consumer: str, reason: str, by: str) -> None:
    """Pause the consumer NAME: deliver nothing to it until it is resumed.

    Within a second, in all processes. What it is consuming now is finished. Its events are recorded
    and kept meanwhile, and other consumers go on.
    """
    request = OperationRequest("pause", by, How.CLI, reason, consumer=consumer)
    _carry_out(Actions.pause_consumer, request)
    echo(f"{consumer} is paused. `kratos-sync resume {consumer}` resumes it.")


@click.command()
@consumer_name
@options.by
@options.why
def resume(consumer: str, by: str, reason: str | None) -> None:
    """Resume the consumer NAME after a pause."""
    request = OperationRequest("resume", by, How.CLI, reason, consumer=consumer)
    was_paused = _carry_out(Actions.resume_consumer, request)
    echo(f"{consumer} {'is resumed' if was_paused else 'was not paused'}.")


def _carry_out(act: Callable[[Actions, RunningOperation], T], request: OperationRequest) -> T:
    with command_container() as container:
        options.known_consumer(container.subscriptions(), request.consumer or "")
        with recorded(container.operations(), request) as operation:
            return act(container.actions(), operation)


def _rate(_ctx: click.Context, _param: click.Parameter, given: str | None) -> str | None:
    try:
        if given is not None:
            events_per_second(given)
    except InvalidRate as error:
        raise click.BadParameter(f"{error}.") from None
    return given


@click.command()
@consumer_name
@click.option("--rate", callback=_rate, metavar="RATE", help="The most events: 100/minute.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="The most events at once.")
@click.option("--reset", is_flag=True, help="What the consumer's class says.")
@options.by
@options.why
def limit(consumer: str, *, by: str, reason: str | None, reset: bool, **limits: Any) -> None:
    """Limit the consumer NAME, over all workers, in place of what its class says.

    Both limits are set: one that is not given is that of the class again.
    """
    if reset == any(limits.values()):
        raise click.UsageError("say --rate, --concurrency or both; or --reset.")
    act = partial(Actions.limit_consumer, **limits)
    _carry_out(act, OperationRequest("limit", by, How.CLI, reason, None, consumer, limits))
    said = ", ".join(f"{name} {value}" for name, value in limits.items() if value)
    echo(f"{consumer}: {said or 'as its class says'}.")
