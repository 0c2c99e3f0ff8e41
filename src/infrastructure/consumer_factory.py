"""Building consumers, each with the ports that its constructor asks for."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from application.consumer import Consumer
from infrastructure.transaction import Transaction


class UnknownPort(Exception):
    """A consumer asks in its constructor for something that no adapter serves."""


class ConsumerFactory:
    """Makes consumers; ``ports`` says which adapter, given a transaction, serves which port.

    Raises UnknownPort at once, not when the first event comes.
    """

    def __init__(
        self,
        kinds: Iterable[type[Consumer[Any]]],
        ports: Mapping[type[Any], Callable[[Transaction], Any]],
    ) -> None:
        self._ports = ports
        self._asked = {kind: _asked_by(kind) for kind in kinds}
        for kind, asked in self._asked.items():
            if unknown := [port for port in asked.values() if port not in ports]:
                raise UnknownPort(f"{kind.__name__} asks for {unknown}, which nothing serves")

    def __call__(self, kind: type[Consumer[Any]], transaction: Transaction) -> Consumer[Any]:
        """Make a consumer whose ports work in the transaction."""
        asked = self._asked[kind].items()
        return kind(**{name: self._ports[port](transaction) for name, port in asked})


def _asked_by(kind: type[Consumer[Any]]) -> dict[str, Any]:
    return {
        name: parameter.annotation
        for name, parameter in inspect.signature(kind, eval_str=True).parameters.items()
        # A consumer that asks for nothing inherits the protocol's (*args, **kwargs).
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }
