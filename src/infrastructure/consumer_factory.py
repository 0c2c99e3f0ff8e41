"""Building consumers, each with the ports that its constructor asks for."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from application.consumer import Consumer
from infrastructure.transaction import Transaction


class UnknownPort(Exception):
    """A consumer asks in its constructor for something that no adapter serves."""


class ConsumerFactory:
    """Makes consumers, each with the adapters that serve the ports it asks for.

    ``in_transaction`` gives for a port what makes its adapter in a transaction; ``outside`` gives
    the adapter itself, for what does not write to our database (mail, another service).
    Raises UnknownPort at once, not when the first event comes.
    """

    def __init__(
        self,
        kinds: Iterable[type[Consumer[Any]]],
        in_transaction: Mapping[type[Any], Callable[[Transaction], Any]],
        outside: Mapping[type[Any], object] | None = None,
    ) -> None:
        self._in_transaction = in_transaction
        self._outside = outside or {}
        ports = {*self._in_transaction, *self._outside}
        self._asked = {kind: _asked_by(kind) for kind in kinds}
        for kind, asked in self._asked.items():
            if unknown := [port for port in asked.values() if port not in ports]:
                names = ", ".join(getattr(port, "__name__", str(port)) for port in unknown)
                raise UnknownPort(f"{kind.__name__} asks for {names}, which nothing serves")

    def __call__(self, kind: type[Consumer[Any]], transaction: Transaction) -> Consumer[Any]:
        """Make a consumer whose ports work in the transaction."""
        asked = self._asked[kind].items()
        return kind(**{name: self._serve(port, transaction) for name, port in asked})

    def _serve(self, port: type[Any], transaction: Transaction) -> object:
        if port in self._outside:
            return self._outside[port]
        return self._in_transaction[port](transaction)


def _asked_by(kind: type[Consumer[Any]]) -> dict[str, Any]:
    return {
        name: parameter.annotation
        for name, parameter in inspect.signature(kind, eval_str=True).parameters.items()
        # A consumer that asks for nothing inherits the protocol's (*args, **kwargs).
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }
