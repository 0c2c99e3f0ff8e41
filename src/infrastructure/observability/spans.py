"""What adapters let a trace see of their work; by default nothing is traced."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final


class RequestSpan:
    """The span of one request."""

    headers: Mapping[str, str] = {}
    """What the request carries, so that the server's spans belong to the same trace."""

    def answered(self, status: int) -> None:
        """The server has answered."""


_NOT_TRACED: Final = RequestSpan()


class Spans:
    """Traces nothing. A subclass makes spans; any thread may call it."""

    def request(
        self,
        operation: str,  # noqa: ARG002
        method: str,  # noqa: ARG002
        base_url: str,  # noqa: ARG002
        path: str,  # noqa: ARG002
    ) -> AbstractContextManager[RequestSpan]:
        """A request to Kratos; ``path`` is a template without ids and query."""
        return nullcontext(_NOT_TRACED)

    def commit(self, traceparents: Iterable[str | None]) -> AbstractContextManager[None]:  # noqa: ARG002
        """A commit of events, with the trace context of each."""
        return nullcontext()


NO_SPANS: Final = Spans()
