"""Makes consumers, each with the adapters for its constructor's parameters."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from kratos_sync.application.application import InvalidApplication
from kratos_sync.application.consumer import Consumer

Transaction = TypeVar("Transaction")


class ConsumerFactory(Generic[Transaction]):
    """Makes consumers in a transaction.

    ``in_transaction`` maps a port to the factory of its adapter in a transaction; ``outside`` maps
    a port to its adapter, for mail or another service. The constructor raises InvalidApplication.
    """

    def __init__(
        self,
        kinds: Iterable[type[Consumer[Any]]],
        in_transaction: Mapping[Any, Callable[[Transaction], object]],
        outside: Mapping[Any, object] | None = None,
    ) -> None:
        self._in_transaction = in_transaction
        self.outside = outside or {}
        ports = {*self._in_transaction, *self.outside}
        self._asked = {kind: ports_of(kind) for kind in kinds}
        for kind, asked in self._asked.items():
            if unknown := [port for port in asked.values() if port not in ports]:
                names = ", ".join(getattr(port, "__name__", str(port)) for port in unknown)
                raise InvalidApplication(f"{kind.__name__} asks for {names}, which nothing serves")

    def __call__(self, kind: type[Consumer[Any]], transaction: Transaction) -> Consumer[Any]:
        asked = self._asked[kind].items()
        return kind(**{name: self._serve(port, transaction) for name, port in asked})

    def _serve(self, port: object, transaction: Transaction) -> object:
        if port in self.outside:
            return self.outside[port]
        return self._in_transaction[port](transaction)


def ports_of(kind: type[Consumer[Any]]) -> dict[str, Any]:
    """The ports that a consumer's constructor asks for, by their parameters."""
    return {
        name: parameter.annotation
        for name, parameter in inspect.signature(kind, eval_str=True).parameters.items()
        # A consumer without a constructor inherits the protocol's (*args, **kwargs).
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }
