"""Makes consumers, each with the adapters for its constructor's parameters."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar

from kratos_sync.application.application import InvalidApplication
from kratos_sync.application.consumer import Consumer, is_async

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
                raise InvalidApplication(
                    f"{kind.__name__} asks for {names_of(unknown)}, which nothing serves"
                )
            require_no_transaction(kind, self._in_transaction.keys() - self.outside.keys())

    def __call__(self, kind: type[Consumer[Any]], transaction: Transaction) -> Consumer[Any]:
        asked = self._asked[kind].items()
        return kind(**{name: self._serve(port, transaction) for name, port in asked})

    def effects_elsewhere(self, kind: type[Consumer[Any]]) -> str | None:
        """What a consumer uses that no transaction rolls back, for a sentence; None if nothing.

        One that is async, or has batches of one, has effects elsewhere by what it says of itself.
        """
        used = names_of(port for port in self._asked[kind].values() if port in self.outside)
        says_so = is_async(kind) or kind.batch_size == 1
        return used or ("other services" if says_so else None)

    def _serve(self, port: object, transaction: Transaction) -> object:
        if port in self.outside:
            return self.outside[port]
        return self._in_transaction[port](transaction)


def require_no_transaction(kind: type[Consumer[Any]], in_transaction: Collection[object]) -> None:
    """Raise InvalidApplication for an async consumer that asks for a port in the transaction.

    Its events run at once, and what one of them wrote could not be rolled back alone.
    """
    if is_async(kind) and (asked := [p for p in ports_of(kind).values() if p in in_transaction]):
        raise InvalidApplication(
            f"{kind.__name__} is async and asks for {names_of(asked)}, which is in the transaction"
        )


def names_of(ports: Iterable[object]) -> str:
    """The names of ports, for a sentence."""
    return ", ".join(getattr(port, "__name__", str(port)) for port in ports)


def ports_of(kind: type[Consumer[Any]]) -> dict[str, Any]:
    """The ports that a consumer's constructor asks for, by their parameters.

    Raises InvalidApplication for a parameter that does not say which.
    """
    try:
        parameters = inspect.signature(kind, eval_str=True).parameters
    except Exception as error:
        raise InvalidApplication(
            f"an annotation of {kind.__name__}'s constructor cannot be evaluated:"
            f" {type(error).__name__}: {error}"
        ) from error
    ports = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        # A consumer without a constructor inherits the protocol's (*args, **kwargs).
        if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}
    }
    for name, port in ports.items():
        if port is inspect.Parameter.empty:
            raise InvalidApplication(
                f"the parameter {name} of {kind.__name__}'s constructor needs an annotation"
            )
    return ports
