"""Three nodes of RabbitMQ that are one cluster, on loopback; one may be in a network of its own."""

import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from tests.infrastructure.bus.rabbitmq_server import START_SECONDS, ReturningRabbitmq
from tests.infrastructure.replicas import LOOPBACK, Network
from tests.ports import free_port
from tests.waiting import until

NAMES: Final = ("a", "b", "c")
NET_TICK_SECONDS: Final = 5


class Node(ReturningRabbitmq):
    """A node of a cluster, that knows the names of the others."""

    def __init__(
        self,
        directory: Path,
        name: str,
        hosts: dict[str, str],
        *,
        names_port: int,
        cookie: str,
        network: Network | None = None,
        starts_names: bool,
    ) -> None:
        super().__init__(directory, host=hosts[name], network=network)
        self.name = f"{name}@{hosts[name]}"
        self._starts_names = starts_names
        self._cookie = cookie
        self._lines += [
            "cluster_formation.peer_discovery_backend = classic_config",
            *(
                f"cluster_formation.classic_config.nodes.{place} = {each}@{host}"
                for place, (each, host) in enumerate(hosts.items(), 1)
            ),
            "cluster_partition_handling = pause_minority",
            f"net_ticktime = {NET_TICK_SECONDS}",
        ]
        self._environment |= {
            "ERL_EPMD_PORT": str(names_port),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_USE_LONGNAME": "true",
        }
        # Names are known at every address of this host, as the others ask for them there.
        del self._environment["ERL_EPMD_ADDRESS"]

    def prepare(self) -> None:
        """Write what it needs, and start what knows the names on its host."""
        super().prepare()
        path = self._directory / ".erlang.cookie"
        path.write_text(self._cookie)
        path.chmod(0o400)

    def _start_names(self) -> None:
        if self._starts_names:
            super()._start_names()


class RabbitmqCluster:
    """Nodes a, b and c; with a network, c is in it and can be cut off."""

    def __init__(self, folder: Path, network: Network | None = None) -> None:
        self.network = network
        ours = LOOPBACK if network is None else network.host
        theirs = LOOPBACK if network is None else network.address
        hosts = {"a": ours, "b": ours, "c": theirs}
        names_port, self._cookie = free_port(), secrets.token_hex(16)
        self.nodes = {
            name: Node(
                folder / name,
                name,
                hosts,
                names_port=names_port,
                cookie=self._cookie,
                network=network if name == "c" else None,
                starts_names=name == "a" or (name == "c" and network is not None),
            )
            for name in NAMES
        }
        addresses = ",".join(f"{each.host}:{each.port}" for each in self.nodes.values())
        self.url = f"amqp://guest:guest@{addresses}/"
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            for node in self.nodes.values():
                undo.callback(node.__exit__)
                node.prepare()
                node.begin_to_come_back()
            for node in self.nodes.values():
                node.be_there()
            until(self.is_whole, START_SECONDS)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def is_whole(self) -> bool:
        """Whether every node runs, for the others too."""
        counting = "length(rabbit_nodes:all_running())."
        return all(node.control("eval", counting).strip() == "3" for node in self.nodes.values())

    def part(self, name: str) -> None:
        """Part a node from the others; whoever else uses it can go on to do so."""
        others = [f"'{each.name}'" for key, each in self.nodes.items() if key != name]
        wrong = "".join(f"erlang:set_cookie({each}, wrong), " for each in others)
        parting = "[erlang:disconnect_node(Each) || Each <- nodes()]."
        self.nodes[name].control("eval", wrong + parting)

    def heal(self, name: str) -> None:
        """Let it find the others again."""
        right = f"'{self._cookie}'"
        others = [f"'{each.name}'" for key, each in self.nodes.items() if key != name]
        mending = ", ".join(f"erlang:set_cookie({each}, {right})" for each in others)
        self.nodes[name].control("eval", f"{mending}.")

    def leader_of(self, queue: str) -> str:
        """The name of the node that leads the queue whose name ends so."""
        node = next(iter(self.nodes.values()))
        for line in node.control("-q", "list_queues", "name", "leader").splitlines():
            name, _, leader = line.partition("\t")
            if name.endswith(queue):
                return leader.partition("@")[0]
        raise AssertionError(f"there is no queue {queue}")
