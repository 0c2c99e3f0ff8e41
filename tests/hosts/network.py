"""Hosts on one network, whose links can be slow, lose packets, or carry in one direction only.

Each host is a namespace with one interface, and so is the switch between them, with a bridge.
Nothing is made outside of them, and addresses of two runs may be the same. Who has which hardware
address is fixed: a host that has gone is not reported by ARP after three seconds, as it would not
be behind a router.
"""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from ipaddress import IPv4Network
from typing import Final, Self

from tests.hosts.slow_links import NO_TROUBLE, SlowLinks, Trouble
from tests.namespaces import Namespace, remove_left

NETWORK: Final = IPv4Network("10.214.0.0/24")
NOBODY: Final = "02:00:00:00:ff:ff"
"""A hardware address that no interface has."""
BRIDGE: Final = "switch"


class Host:
    """One host: its name, its address, and the namespace that it is now."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.address = str(NETWORK[number])
        self.hardware = f"02:00:00:00:00:{number:02x}"
        self.there = Namespace(name)

    def run(self, command: list[str], user: int, group: int) -> list[str]:
        """The command that runs another one on the host, as that user."""
        return self.there.run(command, user, group)


class Network:
    """A switch and its hosts, each on a port of the host's name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.hosts: Mapping[str, Host] = {
            name: Host(name, number) for number, name in enumerate(names, start=1)
        }
        self._switch = Namespace(BRIDGE)
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        remove_left()
        with ExitStack() as undo:
            self._switch.add()
            undo.callback(_remove, self._switch)
            self._switch.ip("link", "add", BRIDGE, "up", "type", "bridge")
            for host in self.hosts.values():
                undo.callback(lambda host=host: _remove(host.there))
                self.connect(host.name)
            self._slow_links = undo.enter_context(SlowLinks(self._switch))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def connect(self, name: str) -> None:
        """Make a host, and plug it in."""
        host = self.hosts[name]
        host.there.add()
        there = f"peer name eth0 address {host.hardware} netns {host.there.name}"
        self._switch.ip_all(
            [f"link add {name} type veth {there}", f"link set {name} master {BRIDGE} up"]
        )
        host.there.ip_all(
            [
                f"addr add {host.address}/{NETWORK.prefixlen} dev eth0",
                "link set eth0 up",
                *(_knows(each, each.hardware) for each in self._others(name)),
            ]
        )
        self._switch.await_port(name)

    def disconnect(self, name: str) -> None:
        """Let a host disappear: from one moment to the next nothing more comes from it."""
        self._switch.ip("link", "del", name)
        host = self.hosts[name]
        host.there.remove()
        host.there = Namespace(name)

    def cut(self, name: str) -> None:
        """Lose all that a host sends, and all that is sent to it."""
        self._switch.ip("link", "set", name, "nomaster")

    def mend(self, name: str) -> None:
        """Carry it again."""
        self._switch.ip("link", "set", name, "master", BRIDGE)

    def drop(self, sender: str, receiver: str) -> None:
        """Lose what one host sends to another, and not what that one sends."""
        self.hosts[sender].there.ip_all([_knows(self.hosts[receiver], NOBODY)])

    def carry(self, sender: str, receiver: str) -> None:
        """Carry it again."""
        host = self.hosts[receiver]
        self.hosts[sender].there.ip_all([_knows(host, host.hardware)])

    def trouble(self, name: str, sent: Trouble, received: Trouble = NO_TROUBLE) -> None:
        """Delay and lose what a host sends and receives from now on."""
        self._slow_links.trouble(name, sent, received)

    def no_trouble(self, name: str) -> None:
        """Carry its packets at once, and all of them."""
        self._slow_links.no_trouble(name)

    def _others(self, name: str) -> Iterator[Host]:
        return (host for host in self.hosts.values() if host.name != name)


def _knows(host: Host, hardware: str) -> str:
    return f"neigh replace {host.address} lladdr {hardware} dev eth0 nud permanent"


def _remove(namespace: Namespace) -> None:
    with suppress(subprocess.CalledProcessError):
        namespace.remove()
