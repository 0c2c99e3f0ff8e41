"""The composition root: which adapter serves which port, in one screen."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dependency_injector import containers, providers
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.actions import Actions
from kratos_sync.application.application import Application, Subscriptions
from kratos_sync.application.consumer_factory import ConsumerFactory
from kratos_sync.application.consumers.count_registrations import RegistrationCounts
from kratos_sync.application.pipeline import Deliver, pipeline
from kratos_sync.application.ports.dead_letters import Failures
from kratos_sync.application.ports.deletions import DeletionFinalizer
from kratos_sync.application.ports.kratos import KratosAnswers
from kratos_sync.domain.kratos_identities import KratosIdentities, RecordedWebhooks
from kratos_sync.infrastructure.application import (
    adapters_in_transaction_of,
    adapters_of,
    application_path,
    load_application,
    subscriptions_with,
)
from kratos_sync.infrastructure.bus.broker import (
    NAMESPACE,
    SharedBrokerToAsk,
    is_in_memory,
    require_shared,
)
from kratos_sync.infrastructure.bus.broker import connect as connect_to_broker
from kratos_sync.infrastructure.bus.relay import Relay
from kratos_sync.infrastructure.deletion import PostgresDeletionFinalizer, PostgresDeletions
from kratos_sync.infrastructure.erasure import ErasureSchedule, PostgresErasures
from kratos_sync.infrastructure.identities.kratos_identities import PostgresKratosIdentities
from kratos_sync.infrastructure.identities.recorded_webhooks import PostgresRecordedWebhooks
from kratos_sync.infrastructure.identities.registration_counts import PostgresRegistrationCounts
from kratos_sync.infrastructure.kratos.refetch import (
    PostgresKratosAnswers,
    PostgresSyncedIdentities,
)
from kratos_sync.infrastructure.ledger.activity import PostgresActivity
from kratos_sync.infrastructure.ledger.claims import PostgresClaims
from kratos_sync.infrastructure.ledger.dead_letters import (
    PostgresDeadLetterDecisions,
    PostgresDeadLetters,
)
from kratos_sync.infrastructure.ledger.event_search import PostgresEventSearch
from kratos_sync.infrastructure.ledger.group_commit import PostgresEventBus
from kratos_sync.infrastructure.ledger.history import PostgresHistory, PostgresIdentitySearch
from kratos_sync.infrastructure.ledger.hook_activity import PostgresHookLog
from kratos_sync.infrastructure.ledger.inbox import A_MOMENT, PostgresFailures, PostgresUnitOfWork
from kratos_sync.infrastructure.ledger.notifications import RelayWakeUp, WakeUpListener
from kratos_sync.infrastructure.ledger.operations import PostgresOperations
from kratos_sync.infrastructure.ledger.policies import Pauses, PostgresConsumerPolicies
from kratos_sync.infrastructure.ledger.purge import PostgresPurge, PurgeSchedule
from kratos_sync.infrastructure.ledger.replay import PostgresRecordedEvents
from kratos_sync.infrastructure.ledger.status import DatabaseReadiness, PostgresStatus
from kratos_sync.infrastructure.ledger.subscriptions import PostgresSubscriptions
from kratos_sync.infrastructure.ledger.timelines import TimelineWatch
from kratos_sync.infrastructure.migrations import deployment_id
from kratos_sync.infrastructure.observability.errors.start import ErrorReports
from kratos_sync.infrastructure.observability.health import Health
from kratos_sync.infrastructure.observability.observer import Observer, reporting
from kratos_sync.infrastructure.observability.tracing.start import Tracing
from kratos_sync.infrastructure.postgres.engine import connect
from kratos_sync.infrastructure.postgres.transaction import Transaction
from kratos_sync.infrastructure.reconciliation.runs import (
    PostgresKratosStatus,
    PostgresReconciliations,
)
from kratos_sync.infrastructure.settings import Settings
from kratos_sync.infrastructure.trial import PostgresTrials
from kratos_sync.infrastructure.worker.in_flight import InFlightDeliveries
from kratos_sync.infrastructure.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from kratos_sync.infrastructure.bus.broker import DramatiqBroker
    from kratos_sync.infrastructure.bus.memory import MemoryElsewhere
    from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin


def _kratos_admin(*arguments: Any, **options: Any) -> "HttpKratosAdmin":
    # Most processes and commands never call Kratos, and need no HTTP client.
    from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin

    return HttpKratosAdmin(*arguments, **options)


def _direct_engine(engine: Engine, settings: Settings) -> Engine:
    if settings.database_direct_url is None:
        return engine
    return connect(settings.direct_url, settings.database_pool_size)


def _deliver(tracing: Tracing, observer: Observer, error_reports: ErrorReports) -> Deliver:
    return pipeline(*tracing.observers, *error_reports.observers, reporting(observer))


def _reported(error_reports: ErrorReports, failures: PostgresFailures) -> Failures:
    return error_reports.of_lost(failures)


def broker_namespace(engine: Engine) -> str:
    """The prefix of this deployment's queues at the broker. Raises LedgerUnavailable."""
    return f"{NAMESPACE}.{deployment_id(engine)}"


def _shared_broker(url: SecretStr, engine: Engine) -> "DramatiqBroker":
    """Connect to the broker that processes share. Raises BrokerNotShared or LedgerUnavailable."""
    require_shared(url)
    return connect_to_broker(url, broker_namespace(engine))


def _broker_to_ask(
    settings: Settings, shared: "Callable[[], DramatiqBroker]"
) -> "SharedBrokerToAsk | MemoryElsewhere":
    if not is_in_memory(settings.broker_url):
        return SharedBrokerToAsk(shared)
    from kratos_sync.infrastructure.bus.memory import MemoryElsewhere

    return MemoryElsewhere(settings.metrics_host, settings.second_metrics_port)


def _consumers(
    subscriptions: Subscriptions,
    application: Application[Any, Any] | None,
    in_transaction: Mapping[Any, Callable[[Transaction], object]],
) -> ConsumerFactory[Transaction]:
    return ConsumerFactory(
        subscriptions.consumers.values(),
        adapters_in_transaction_of(application, in_transaction),
        adapters_of(application),
    )


class Container(containers.DeclarativeContainer):
    """Everything a process may need; nothing is made before it is asked for."""

    settings = providers.Singleton(Settings)
    observer = providers.Singleton(Observer)
    """Overridden where metrics are exported."""
    health = providers.Singleton(Health, "", observer)
    """Overridden in long-running processes."""
    tracing = providers.Singleton(Tracing)
    """Overridden where traces are."""
    error_reports = providers.Singleton(ErrorReports)
    """Overridden where errors are reported."""
    application_path = providers.Singleton(application_path, settings.provided.kratos_sync_app)
    application = providers.Singleton(load_application, application_path)
    subscriptions = providers.Singleton(subscriptions_with, application)
    engine = providers.Singleton(
        connect, settings.provided.database_url, settings.provided.database_pool_size
    )
    direct_engine = providers.Singleton(_direct_engine, engine, settings)
    """Past a pooler."""
    broker = providers.Singleton(_shared_broker, settings.provided.broker_url, engine)
    """Overridden in a process that has one in its memory."""
    broker_to_ask = providers.Singleton(_broker_to_ask, settings, broker.provider)
    """For processes that neither send nor consume."""
    wake_relay = providers.Singleton(RelayWakeUp, settings.provided.database_url)
    event_bus = providers.Singleton(
        PostgresEventBus,
        settings.provided.database_url,
        observer=observer,
        spans=tracing.provided.spans,
    )
    hook_log = providers.Singleton(PostgresHookLog, settings.provided.database_url)
    new_kratos_admin = providers.Factory(
        _kratos_admin,
        settings.provided.kratos_admin_url,
        settings.provided.kratos_admin_token,
        observer=observer,
        spans=tracing.provided.spans,
    )
    """For a process that calls Kratos now and then, each time with its own way to pause."""
    kratos_admin = providers.Singleton(new_kratos_admin)

    adapters_in_transaction = providers.Dict(
        {
            DeletionFinalizer: providers.Factory(
                PostgresDeletionFinalizer, kratos=kratos_admin.provider
            ).provider,
            KratosAnswers: providers.Factory(
                PostgresKratosAnswers,
                kratos=kratos_admin.provider,
                ids=settings.provided.identity_ids,
            ).provider,
            KratosIdentities: providers.Factory(PostgresKratosIdentities).provider,
            RecordedWebhooks: providers.Factory(PostgresRecordedWebhooks).provider,
            RegistrationCounts: providers.Factory(PostgresRegistrationCounts).provider,
        }
    )
    consumers = providers.Singleton(_consumers, subscriptions, application, adapters_in_transaction)
    unit_of_work = providers.Factory(PostgresUnitOfWork, engine, consumers, wake_relay)
    failures = providers.Singleton(PostgresFailures, engine)
    failures_without_waiting = providers.Singleton(
        _reported,
        error_reports,
        providers.Singleton(PostgresFailures, engine, lock_timeout=A_MOMENT),
    )
    trials = providers.Singleton(PostgresTrials, engine, unit_of_work.provider)

    in_flight = providers.Singleton(InFlightDeliveries)
    claims = providers.Singleton(PostgresClaims, engine, settings.provided.lease)
    # The watchdog's own: all of the pool's may be with threads that it has to free.
    spare_engine = providers.Singleton(connect, settings.provided.database_url, 2)
    watchdog = providers.Singleton(
        Watchdog,
        providers.Singleton(
            _reported, error_reports, providers.Singleton(PostgresFailures, spare_engine)
        ),
        providers.Singleton(PostgresClaims, spare_engine, settings.provided.lease),
        in_flight,
        observer=observer,
    )
    policies = providers.Singleton(PostgresConsumerPolicies, engine)
    pauses = providers.Singleton(
        Pauses,
        providers.Singleton(PostgresConsumerPolicies, spare_engine),
        watchdog.provided.busy_threads,
    )
    listener = providers.Singleton(WakeUpListener, settings.provided.direct_url)
    deliver = providers.Singleton(_deliver, tracing, observer, error_reports)
    relay = providers.Singleton(
        Relay, claims, broker, listener, subscriptions, policies, observer=observer
    )

    database_readiness = providers.Singleton(DatabaseReadiness, engine)
    status = providers.Singleton(PostgresStatus, engine)
    kept_subscriptions = providers.Singleton(PostgresSubscriptions, engine, subscriptions)
    activity = providers.Singleton(PostgresActivity, engine)
    history = providers.Singleton(PostgresHistory, engine)
    identity_search = providers.Singleton(PostgresIdentitySearch, engine)
    event_search = providers.Singleton(PostgresEventSearch, engine)
    operations = providers.Singleton(PostgresOperations, engine)
    dead_letters = providers.Singleton(PostgresDeadLetters, engine)
    dead_letter_decisions = providers.Singleton(PostgresDeadLetterDecisions, engine)
    recorded_events = providers.Singleton(PostgresRecordedEvents, engine)
    reconciliations = providers.Singleton(
        PostgresReconciliations, direct_engine, settings.provided.identity_ids
    )
    kratos_status = providers.Singleton(PostgresKratosStatus, engine)
    synced_identities = providers.Singleton(PostgresSyncedIdentities, engine)
    deletions = providers.Singleton(PostgresDeletions, engine)
    erasures = providers.Singleton(PostgresErasures, engine)
    erasure_schedule = providers.Singleton(ErasureSchedule, erasures, operations)
    timeline_watch = providers.Singleton(TimelineWatch, engine)
    purge = providers.Singleton(PostgresPurge, engine)
    purge_schedule = providers.Singleton(
        PurgeSchedule,
        purge,
        settings.provided.retention,
        settings.provided.purge_every,
        operations=operations,
        operations_kept=settings.provided.operations_kept,
        observer=observer,
    )
    actions = providers.Singleton(
        Actions,
        subscriptions=subscriptions,
        events=recorded_events,
        dead_letters=dead_letter_decisions,
        policies=policies,
        kratos=new_kratos_admin.provider,
        synced=synced_identities,
        reconciliations=reconciliations,
        public_urls=settings.provided.kratos_urls,
        ids=settings.provided.identity_ids,
        deletions=deletions,
        erasures=erasures,
        wake_relay=wake_relay,
    )
