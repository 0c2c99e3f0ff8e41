"""The subscriptions in the database, from which every event gets its deliveries."""

from typing import Final, NamedTuple

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from kratos_sync.application.application import Subscriptions
from kratos_sync.infrastructure.postgres.connection_failures import INSUFFICIENT_PRIVILEGE
from kratos_sync.infrastructure.postgres.engine import sqlstates_of, translate_errors

KEPT: Final = text("""
    SELECT event, consumer, ordered FROM kratos_sync.subscriptions ORDER BY consumer, event
""")
ADD: Final = text("""
    INSERT INTO kratos_sync.subscriptions (event, consumer, ordered)
    VALUES (:event, :consumer, :ordered)
    ON CONFLICT (event, consumer) DO UPDATE SET ordered = excluded.ordered
""")


class MayNotSubscribe(Exception):
    """This process' role may not add a missing subscription: `kratos-sync migrate` does."""


class Subscription(NamedTuple):
    """An event and a consumer of it, both by their names; and whether it is delivered in order."""

    event: str
    consumer: str
    ordered: bool = False


class PostgresSubscriptions:
    """Keeps the subscriptions of this release in the database.

    Processes of two releases may run at once, and one may be started without its application: so
    they only add. Only a person removes.
    """

    def __init__(self, engine: Engine, subscriptions: Subscriptions) -> None:
        self._engine = engine
        self._subscriptions = subscriptions

    def add_missing(self) -> list[Subscription]:
        """Add what this release has and the database does not; returns it.

        Raises MayNotSubscribe if something is missing and the role may not write, LedgerUnavailable
        or sqlalchemy.exc.DBAPIError.
        """
        wanted = self._wanted()
        missing: list[Subscription] = []
        try:
            with translate_errors(), self._engine.begin() as connection:
                kept = {Subscription(*row) for row in connection.execute(KEPT)}
                if missing := sorted(wanted - kept):
                    connection.execute(ADD, [each._asdict() for each in missing])
        except DBAPIError as error:
            if not missing or INSUFFICIENT_PRIVILEGE not in sqlstates_of(error):
                raise
            raise MayNotSubscribe(
                f"{missing[0].consumer} is not subscribed to {missing[0].event} in the database"
                " yet: run `kratos-sync migrate` first, with the application"
            ) from error
        return missing

    def unknown(self) -> list[Subscription]:
        """Those in the database that this release does not have. Raises LedgerUnavailable."""
        with translate_errors(), self._engine.connect() as connection:
            kept = [Subscription(*row) for row in connection.execute(KEPT)]
        known = set(self._subscriptions)
        return [each for each in kept if (each.event, each.consumer) not in known]

    def _wanted(self) -> set[Subscription]:
        kinds = self._subscriptions.consumers
        return {Subscription(*pair, kinds[pair[1]].ordered) for pair in self._subscriptions}
