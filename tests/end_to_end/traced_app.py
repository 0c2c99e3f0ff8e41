"""An application with a consumer that asks Kratos, and quotes whoever it is about."""

from datetime import timedelta

from opentelemetry import trace

from kratos_sync.application.application import Application
from kratos_sync.application.consumer import Consumer
from kratos_sync.application.ports.kratos import KratosAnswers, KratosError
from kratos_sync.domain.events import IdentityRegistered

tracer = trace.get_tracer(__name__)


class AskKratos(Consumer[IdentityRegistered]):
    """Asks Kratos about whoever registers, in a span of its own."""

    name = "AskKratos"
    batch_size = 1
    first_backoff = timedelta(seconds=5)

    def __init__(self, answers: KratosAnswers) -> None:
        self._answers = answers

    def consume(self, event: IdentityRegistered) -> None:
        with tracer.start_as_current_span("ask"):
            try:
                self._answers.ask(event.identity_id)
            except KratosError as error:
                raise RuntimeError(f"cannot ask about {event.traits}") from error


app = Application[None, object](subscriptions={IdentityRegistered: [AskKratos]})
