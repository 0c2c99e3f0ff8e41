"""The composition root: which adapter serves which port, in one screen."""

from dependency_injector import containers, providers

from application.ports.departures import Departures
from application.ports.kratos_answers import KratosAnswers
from application.ports.registration_counts import RegistrationCounts
from application.subscriptions import CONSUMERS
from domain.kratos_identities import KratosIdentities
from domain.recorded_webhooks import RecordedWebhooks
from infrastructure import database
from infrastructure.bus import broker
from infrastructure.bus.event_bus import DramatiqEventBus
from infrastructure.bus.hands import Hands
from infrastructure.bus.relay import Relay
from infrastructure.bus.watchdog import Watchdog
from infrastructure.consumer_factory import ConsumerFactory
from infrastructure.deletion.deletions import PostgresDeletions
from infrastructure.deletion.departures import PostgresDepartures
from infrastructure.erasure.erasures import PostgresErasures
from infrastructure.erasure.schedule import ErasureSchedule
from infrastructure.identities.kratos_identities import SqlAlchemyKratosIdentities
from infrastructure.identities.recorded_webhooks import PostgresRecordedWebhooks
from infrastructure.kratos.admin_api import HttpKratosAdmin
from infrastructure.kratos_answers.answers import PostgresKratosAnswers
from infrastructure.kratos_answers.asked_identities import PostgresAskedIdentities
from infrastructure.ledger import deployment
from infrastructure.ledger.claims import PostgresClaims
from infrastructure.ledger.dead_letter_decisions import PostgresDeadLetterDecisions
from infrastructure.ledger.dead_letters import PostgresDeadLetters
from infrastructure.ledger.failures import PostgresFailures
from infrastructure.ledger.history import PostgresHistory
from infrastructure.ledger.hook_log import PostgresHookLog
from infrastructure.ledger.listener import WakeUpListener
from infrastructure.ledger.purge import PostgresPurge
from infrastructure.ledger.purge_schedule import PurgeSchedule
from infrastructure.ledger.readiness import DatabaseReadiness
from infrastructure.ledger.replay import PostgresRecordedEvents
from infrastructure.ledger.status import PostgresStatus
from infrastructure.ledger.wakeup import RelayWakeUp
from infrastructure.reconciliation.reconciliations import PostgresReconciliations
from infrastructure.registrations.registration_counts import PostgresRegistrationCounts
from infrastructure.settings import Settings
from infrastructure.transaction import Transaction
from infrastructure.unit_of_work import PostgresUnitOfWork


class Container(containers.DeclarativeContainer):
    """Everything a process may need; nothing is made before it is asked for."""

    settings = providers.Singleton(Settings)
    engine = providers.Singleton(
        database.connect, settings.provided.database_url, settings.provided.database_pool_size
    )
    broker = providers.Singleton(
        broker.connect,
        settings.provided.broker_url,
        providers.Callable(deployment.namespace, engine),
    )
    wake_relay = providers.Singleton(RelayWakeUp, settings.provided.database_url)
    event_bus = providers.Singleton(DramatiqEventBus, settings.provided.database_url)
    hook_log = providers.Singleton(PostgresHookLog, settings.provided.database_url)
    kratos_admin = providers.Singleton(
        HttpKratosAdmin, settings.provided.kratos_admin_url, settings.provided.kratos_admin_token
    )

    consumers = providers.Singleton(
        ConsumerFactory,
        kinds=list(CONSUMERS.values()),
        in_transaction=providers.Dict(
            {
                Departures: providers.Factory(
                    PostgresDepartures, kratos=kratos_admin.provider
                ).provider,
                KratosAnswers: providers.Factory(
                    PostgresKratosAnswers, kratos=kratos_admin.provider
                ).provider,
                KratosIdentities: providers.Factory(SqlAlchemyKratosIdentities).provider,
                RecordedWebhooks: providers.Factory(PostgresRecordedWebhooks).provider,
                RegistrationCounts: providers.Factory(PostgresRegistrationCounts).provider,
            }
        ),
        outside=providers.Dict({}),
    )
    unit_of_work = providers.Factory(
        PostgresUnitOfWork, providers.Factory(Transaction, engine), consumers, wake_relay
    )
    failures = providers.Singleton(PostgresFailures, engine)

    hands = providers.Singleton(Hands)
    claims = providers.Singleton(PostgresClaims, engine, settings.provided.lease)
    # The watchdog's own: all of the pool's may be with threads that it has to free.
    spare_engine = providers.Singleton(database.connect, settings.provided.database_url, 2)
    watchdog = providers.Singleton(
        Watchdog,
        providers.Singleton(PostgresFailures, spare_engine),
        providers.Singleton(PostgresClaims, spare_engine, settings.provided.lease),
        hands,
    )
    listener = providers.Singleton(WakeUpListener, settings.provided.database_url)
    relay = providers.Singleton(Relay, claims, broker, listener, CONSUMERS)

    database_readiness = providers.Singleton(DatabaseReadiness, engine)
    status = providers.Singleton(PostgresStatus, engine)
    history = providers.Singleton(PostgresHistory, engine)
    dead_letters = providers.Singleton(PostgresDeadLetters, engine)
    dead_letter_decisions = providers.Singleton(PostgresDeadLetterDecisions, engine)
    recorded_events = providers.Singleton(PostgresRecordedEvents, engine)
    reconciliations = providers.Singleton(PostgresReconciliations, engine)
    asked_identities = providers.Singleton(PostgresAskedIdentities, engine)
    deletions = providers.Singleton(PostgresDeletions, engine)
    erasures = providers.Singleton(PostgresErasures, engine)
    erasure_schedule = providers.Singleton(ErasureSchedule, erasures)
    purge = providers.Singleton(PostgresPurge, engine)
    purge_schedule = providers.Singleton(
        PurgeSchedule, purge, settings.provided.retention, settings.provided.purge_every
    )
