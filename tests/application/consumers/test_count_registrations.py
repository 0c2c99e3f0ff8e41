from datetime import UTC, date, datetime, timedelta, timezone

from kratos_sync.application.consumers.count_registrations import CountRegistrations
from kratos_sync.domain.events import IdentityRegistered
from kratos_sync.testing.fakes import InMemoryRegistrationCounts
from kratos_sync.testing.ledger import InMemoryLedger
from tests.application.delivering import deliver_everything
from tests.domain.people import ADA, NOON, cause, minutes, written
from tests.suites.occurrences import PEOPLE, WEBHOOK, updated


def registered(created_at: datetime | None, *, at: datetime = NOON) -> IdentityRegistered:
    return IdentityRegistered(cause(), at, ADA, 1, {}, created_at)


def test_a_registration_counts_on_the_day_that_it_happened() -> None:
    counts = InMemoryRegistrationCounts()
    consumer = CountRegistrations(counts)

    consumer.consume(registered(NOON))
    consumer.consume(registered(NOON, at=NOON + timedelta(days=3)))
    consumer.consume(registered(NOON + timedelta(days=1)))

    assert counts.by_day == {date(2026, 11, 23): 2, date(2026, 11, 24): 1}


def test_a_registration_without_a_time_counts_on_the_day_of_its_event() -> None:
    counts = InMemoryRegistrationCounts()

    CountRegistrations(counts).consume(registered(None))

    assert counts.by_day == {date(2026, 11, 23): 1}


def test_a_day_is_a_day_in_utc() -> None:
    counts = InMemoryRegistrationCounts()
    late_in_honolulu = datetime(2026, 11, 23, 20, tzinfo=timezone(timedelta(hours=-10)))

    CountRegistrations(counts).consume(registered(late_in_honolulu))

    assert counts.by_day == {late_in_honolulu.astimezone(UTC).date(): 1}
    assert date(2026, 11, 24) in counts.by_day


def test_everybody_who_registers_is_counted_once(ledger: InMemoryLedger) -> None:
    for number, who in enumerate(PEOPLE, start=1):
        ledger.publish(updated(number, who), WEBHOOK)
        ledger.publish(updated(100 + number, who, at=minutes(2)), WEBHOOK)

    deliver_everything(ledger)

    assert ledger.counts.by_day == {NOON.date(): 4}
    assert ledger.deliveries == {}


def test_an_old_account_is_not_counted(ledger: InMemoryLedger) -> None:
    ledger.publish(updated(1, created_at=written(NOON - timedelta(days=900))), WEBHOOK)

    deliver_everything(ledger)

    assert ledger.counts.by_day == {}
    assert "identity.discovered" in {event.name for event in ledger.events.values()}
