"""Every kind of fault: what it is done to, how long it lasts, how soon all must be well again."""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

Broker = Literal["valkey", "rabbitmq", "memory"]
API, RELAY, WORKERS = "api", "relay", ("worker-1", "worker-2")
PROCESSES: Final = (API, RELAY, *WORKERS)
ALL, DELIVERY = "all", "delivery"
DATABASE, BROKER, CONSUMER = "database", "broker", "consumer"
LEASE_SECONDS: Final = 5
SUPERVISOR_KILLED: Final = "worker's supervisor killed"
STARTS_BROKER: Final = ("broker killed", "broker replaced")
LONGER_THAN_A_LEASE: Final = (5.5, 6.5)


class Kind(NamedTuple):
    """A kind of fault.

    One round does no two faults to one target. ``seconds`` are the shortest and the longest that it
    lasts; ``recovers_in`` is the longest from its end until all that was pending then is consumed.
    A run does it at most ``most_times``. One that keeps others from recovering is done ``alone``.
    """

    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)
    recovers_in: float = 20.0
    most_times: int = 1_000
    alone: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    # Processes of ours.
    "api killed": Kind((API,)),
    "relay killed": Kind((RELAY,)),
    "worker killed": Kind(WORKERS),
    SUPERVISOR_KILLED: Kind(WORKERS),
    "api stopped": Kind((API,), LONGER_THAN_A_LEASE),
    "relay stopped": Kind((RELAY,), LONGER_THAN_A_LEASE),
    "worker stopped": Kind(WORKERS, LONGER_THAN_A_LEASE),
    "clock jumps": Kind(PROCESSES, (2.0, 4.0)),
    # PostgreSQL, and the wire to it.
    "database restarted at once": Kind((DATABASE,)),
    "database killed": Kind((DATABASE,)),
    "database backend killed": Kind((DATABASE,)),
    "database connections ended": Kind((DATABASE,)),
    "database connections cut": Kind(PROCESSES),
    "commit lost": Kind(PROCESSES),
    "commit's answer lost": Kind(PROCESSES),
    "database silent": Kind(PROCESSES, (3.0, 6.0)),
    "database slow": Kind(PROCESSES, (2.0, 4.0)),
    "database locked": Kind((DATABASE,), (3.0, 5.0)),
    "database disk full": Kind((DATABASE,), (2.0, 4.0), 25.0),
    # The broker, and the wire to it.
    "broker killed": Kind((BROKER,), (1.0, 3.0)),
    "broker wiped": Kind((BROKER,)),
    "broker replaced": Kind((BROKER,), (0.5, 1.5)),
    "broker out of memory": Kind((BROKER,), (2.0, 4.0)),
    "broker slow": Kind((BROKER,), (2.0, 4.0)),
    "broker connections cut": Kind((BROKER,)),
    "broker's answer lost": Kind((BROKER,)),
    "broker silent": Kind((BROKER,), (3.0, 6.0)),
    # What consumers do.
    "consumer raises": Kind((CONSUMER,)),
    "consumer hangs": Kind((CONSUMER,)),
    "consumer hangs in a call": Kind((CONSUMER,), recovers_in=30.0),
    "consumer hangs in SQL": Kind((CONSUMER,)),
    "consumer keeps the interpreter": Kind((CONSUMER,), recovers_in=60.0, most_times=2, alone=True),
    "consumer eats memory": Kind((CONSUMER,), recovers_in=30.0),
    "consumer exits": Kind((CONSUMER,), recovers_in=30.0),
}


def processes_with(broker: Broker) -> tuple[str, ...]:
    """The processes that faults are done to: with a broker in memory those of `kratos-sync all`."""
    return (API, DELIVERY) if broker == "memory" else PROCESSES


def kinds_with(broker: Broker) -> Mapping[str, Kind]:
    """The kinds of fault that there are: a broker in memory has none but its process'.

    RabbitMQ takes ten seconds and more to start, and nothing else recovers before.
    """
    if broker == "valkey":
        return KINDS
    if broker == "rabbitmq":
        slow = {name: KINDS[name]._replace(recovers_in=30.0, alone=True) for name in STARTS_BROKER}
        return {**KINDS, **slow}
    within = {**dict.fromkeys(PROCESSES, DELIVERY), API: API}
    kinds = {
        name: kind._replace(targets=tuple(dict.fromkeys(within.get(t, t) for t in kind.targets)))
        for name, kind in KINDS.items()
        if BROKER not in kind.targets
    }
    # Both processes have the same one.
    killed = kinds[SUPERVISOR_KILLED]._replace(targets=(ALL,), alone=True)
    return {**kinds, SUPERVISOR_KILLED: killed}
