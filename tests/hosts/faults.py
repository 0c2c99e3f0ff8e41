"""What is done to hosts and to the network between them."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from tests.faults.outside import Outside
from tests.hosts.slow_links import Trouble
from tests.hosts.stage import ALL, APIS, BROKER, POSTGRESQL, RELAYS, SERVICE, WORKERS, Stage
from tests.waiting import until

Act = Callable[[Stage], None]
Choose = Callable[[Stage], str]
SLOW: Final = Trouble(delay=0.05)
LOSSY: Final = Trouble(loss=0.03)
CLOCK_SECONDS: Final = 90.0
IDLE_IN_TRANSACTION: Final = """
    SELECT host(client_addr) AS address FROM pg_stat_activity
    WHERE state = 'idle in transaction' AND state_change < clock_timestamp() - interval '0.3 s'
      AND application_name = 'kratos-sync'
"""
ANSWERS_IN: Final = 45.0
"""Kratos waits for 30 s for the answer to what a host received that has gone since."""
LEASE_IN: Final = 40.0
"""What a worker has that does not reach PostgreSQL is sent to another one when its lease ends."""


SLOWLY_IN: Final = 30.0
"""Statements that take no time on one host take most of it when each crosses the network."""


class Fault(NamedTuple):
    """A fault, which lasts for some seconds at least.

    Within so many seconds from its beginning the rest must do all the work, and from its end all.
    ``goes_on_in`` is None where nothing can go on while it lasts.
    """

    begin: Act
    end: Act
    goes_on_in: float | None = 20.0
    recovers_in: float = 20.0
    seconds: float = 20.0


def _slow(stage: Stage) -> None:
    for name in ALL:
        stage.network.trouble(name, SLOW)


def _lossy(stage: Stage) -> None:
    for name in ALL:
        stage.network.trouble(name, LOSSY)


def _slow_database(stage: Stage) -> None:
    stage.network.trouble(POSTGRESQL, SLOW, SLOW)


def _no_trouble(stage: Stage) -> None:
    for name in ALL:
        stage.network.no_trouble(name)


def _shift_clocks(stage: Stage) -> None:
    """Let the clocks of every two hosts of a kind be 90 s apart, and all but one be wrong."""
    for number, name in enumerate(SERVICE):
        stage.set_clock(name, CLOCK_SECONDS * (number % 3 - 1))


def _right_clocks(stage: Stage) -> None:
    for name in SERVICE:
        stage.set_clock(name, 0)


def _api(_: Stage) -> str:
    return APIS[0]


def _relay(_: Stage) -> str:
    return RELAYS[0]


def _in_a_batch(stage: Stage) -> str:
    """Let a consumer hang, and give the worker that has its batch open."""
    stage.kratos.call(trouble="hangs", troubles=1)
    workers = {stage.network.hosts[name].address: name for name in WORKERS}
    with Outside(stage.url) as outside:

        def found() -> str | None:
            waiting = [row["address"] for row in outside.ask(IDLE_IN_TRANSACTION) or []]
            return next((workers[each] for each in waiting if each in workers), None)

        name = until(found)
    assert name is not None
    return name


def _exporting(stage: Stage) -> str:
    """The relay that exports the metrics of the ledger."""
    return stage.exporting()[0]


def _one(
    choose: Choose, begin: Callable[[Stage, str], None], end: Callable[[Stage, str], None]
) -> tuple[Act, Act]:
    """Do it to one host, which is chosen when it begins."""
    chosen: list[str] = []

    def begin_it(stage: Stage) -> None:
        chosen.append(choose(stage))
        begin(stage, chosen[-1])

    def end_it(stage: Stage) -> None:
        end(stage, chosen.pop())

    return begin_it, end_it


def _sends_in_vain(choose: Choose, receiver: str) -> tuple[Act, Act]:
    return _one(
        choose,
        lambda stage, name: stage.network.drop(name, receiver),
        lambda stage, name: stage.network.carry(name, receiver),
    )


def _receives_nothing(choose: Choose, sender: str) -> tuple[Act, Act]:
    return _one(
        choose,
        lambda stage, name: stage.network.drop(sender, name),
        lambda stage, name: stage.network.carry(sender, name),
    )


def _silent(choose: Choose) -> tuple[Act, Act]:
    return _one(
        choose,
        lambda stage, name: stage.network.cut(name),
        lambda stage, name: stage.network.mend(name),
    )


def _lost(choose: Choose) -> tuple[Act, Act]:
    return _one(choose, Stage.lose, Stage.bring_back)


FAULTS: Final[Mapping[str, Fault]] = {
    "50 ms from each host to each other": Fault(_slow, _no_trouble, SLOWLY_IN),
    "50 ms to and from PostgreSQL": Fault(_slow_database, _no_trouble, SLOWLY_IN),
    "3 % of all packets lost": Fault(_lossy, _no_trouble, SLOWLY_IN),
    "worker to PostgreSQL lost": Fault(*_sends_in_vain(_in_a_batch, POSTGRESQL), LEASE_IN),
    "PostgreSQL to worker lost": Fault(*_receives_nothing(_in_a_batch, POSTGRESQL), LEASE_IN),
    "api to PostgreSQL lost": Fault(*_sends_in_vain(_api, POSTGRESQL), ANSWERS_IN),
    "PostgreSQL to api lost": Fault(*_receives_nothing(_api, POSTGRESQL), ANSWERS_IN),
    "relay to PostgreSQL lost": Fault(*_sends_in_vain(_exporting, POSTGRESQL)),
    "PostgreSQL to relay lost": Fault(*_receives_nothing(_exporting, POSTGRESQL)),
    "relay to broker lost": Fault(*_sends_in_vain(_relay, BROKER)),
    "broker to relay lost": Fault(*_receives_nothing(_relay, BROKER)),
    "worker to broker lost": Fault(*_sends_in_vain(_in_a_batch, BROKER)),
    "broker to worker lost": Fault(*_receives_nothing(_in_a_batch, BROKER)),
    "worker silent": Fault(*_silent(_in_a_batch), LEASE_IN),
    "relay silent": Fault(*_silent(_exporting)),
    "api silent": Fault(*_silent(_api), ANSWERS_IN),
    "broker silent": Fault(*_silent(lambda _: BROKER), None),
    "PostgreSQL silent": Fault(*_silent(lambda _: POSTGRESQL), None),
    "worker's host lost": Fault(*_lost(_in_a_batch), LEASE_IN),
    "relay's host lost": Fault(*_lost(_exporting)),
    "api's host lost": Fault(*_lost(_api), ANSWERS_IN),
    "clocks 90 s apart": Fault(_shift_clocks, _right_clocks),
}
