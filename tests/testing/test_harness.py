"""Each test of an application in memory and on a real PostgreSQL: the outcome is the same."""

from uuid import uuid4

import pytest

from kratos_sync import (
    Application,
    IdentityCredentialsChanged,
    IdentityDeleted,
    IdentityLoggedIn,
    IdentityRecovered,
    IdentityRegistered,
    IdentityTraitsChanged,
    KratosIdentityGone,
)
from kratos_sync.application.application import InvalidApplication
from kratos_sync.application.consumers.sync_kratos_identity import SyncKratosIdentity
from kratos_sync.domain.fields import InvalidField
from kratos_sync.testing import Harness, recorded_webhooks, webhook
from tests.testing.acme import (
    InMemorySubscribers,
    KeepSubscribers,
    Mail,
    RecordingMail,
    SendWelcomeEmail,
    Subscribers,
    WaitForMorning,
    app,
)
from tests.testing.backends import backend  # noqa: F401  # a fixture

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture
def mail() -> RecordingMail:
    return RecordingMail()


@pytest.fixture
def harness(mail: RecordingMail) -> Harness:
    return Harness(app, adapters={Mail: mail, Subscribers: InMemorySubscribers()})


def subscribers(harness: Harness) -> list[str]:
    with harness.port(Subscribers) as port:
        emails: list[str] = port.emails()
    return emails


def test_a_person_who_registers_is_welcomed(harness: Harness, mail: RecordingMail) -> None:
    harness.receive(webhook("registration", email="ada@example.org"))
    harness.deliver()

    assert mail.recipients == ["ada@example.org"]
    assert subscribers(harness) == ["ada@example.org"]
    (event,) = harness.consumed(SendWelcomeEmail)
    assert harness.raised(IdentityRegistered) == [event]


def test_nothing_is_delivered_before_it_is_asked_for(harness: Harness, mail: RecordingMail) -> None:
    harness.receive(webhook(email="ada@example.org"))

    assert (mail.recipients, harness.raised(IdentityRegistered)) == ([], [])


def test_a_later_webhook_is_about_the_same_identity(harness: Harness) -> None:
    ada = webhook(email="ada@example.org")
    harness.receive(ada)
    harness.deliver()
    harness.receive(webhook("settings", after=ada, email="countess@example.org"))
    harness.deliver()

    assert subscribers(harness) == ["countess@example.org"]
    (changed,) = harness.raised(IdentityTraitsChanged)
    assert changed.identity_id == ada.identity_id
    identity = harness.identity(ada.identity_id)
    assert identity is not None
    assert identity.traits == {"email": "countess@example.org"}


def test_an_event_is_published_as_it_is(harness: Harness) -> None:
    ada = webhook(email="ada@example.org")
    received = harness.receive(ada)
    harness.deliver()
    harness.publish(KratosIdentityGone(uuid4(), received.date_occurred, ada.identity_id))
    harness.deliver()

    assert [event.identity_id for event in harness.raised(IdentityDeleted)] == [ada.identity_id]
    assert subscribers(harness) == []


def test_what_a_consumer_raises_is_raised_by_the_delivery(
    harness: Harness, mail: RecordingMail
) -> None:
    mail.fails_for = "ada@example.org"
    harness.receive(webhook(email="ada@example.org"))

    with pytest.raises(ConnectionError, match="no mail today"):
        harness.deliver()
    assert subscribers(harness) == ["ada@example.org"]


def test_an_expected_failure_is_retried_after_its_backoff_until_it_is_a_dead_letter(
    harness: Harness, mail: RecordingMail
) -> None:
    mail.fails_for = "ada@example.org"
    harness.receive(webhook(email="ada@example.org"))

    harness.deliver(expect_failures=True)
    harness.deliver(expect_failures=True)
    assert len(harness.failed(SendWelcomeEmail)) == 1
    assert harness.dead(SendWelcomeEmail) == []
    harness.advance(minutes=5)
    harness.deliver(expect_failures=True)

    first, last = harness.failed(SendWelcomeEmail)
    assert "ConnectionError: no mail today" in first.error
    assert harness.dead(SendWelcomeEmail) == [last.event]
    assert harness.consumed(SendWelcomeEmail) == []


def test_a_failing_event_leaves_nothing_and_the_others_of_its_batch_do(harness: Harness) -> None:
    for email in ("ada@example.org", "bad@example.org", "grace@example.org"):
        harness.receive(webhook(email=email))

    harness.deliver(expect_failures=True)

    assert subscribers(harness) == ["ada@example.org", "grace@example.org"]
    (failed,) = harness.failed(KeepSubscribers)
    assert isinstance(failed.event, IdentityRegistered)
    assert failed.event.traits == {"email": "bad@example.org"}


def test_a_postponed_event_is_no_failure_and_comes_back(harness: Harness) -> None:
    ada = webhook(email="ada@example.org")
    harness.receive(ada)
    harness.receive(webhook("settings", after=ada, email="countess@example.org"))
    harness.deliver()

    assert len(harness.postponed(WaitForMorning)) == 1
    harness.advance(hours=2)
    harness.deliver()

    assert len(harness.postponed(WaitForMorning)) == 2
    assert harness.failed(WaitForMorning) == harness.dead(WaitForMorning) == []


def test_the_recorded_webhooks_of_a_real_kratos_are_replayed(harness: Harness) -> None:
    for each in recorded_webhooks():
        harness.receive(each)
    harness.deliver(expect_failures=True)

    assert len(harness.consumed(SyncKratosIdentity)) == len(recorded_webhooks()) == 13
    for each in recorded_webhooks():
        assert harness.identity(each.identity_id) is not None


def test_a_body_that_the_api_would_reject_is_refused(harness: Harness) -> None:
    with pytest.raises(InvalidField):
        harness.receive({"identity": {"id": "nobody"}})


def test_consumers_without_their_adapter_are_left_out() -> None:
    harness = Harness(app)
    harness.receive(webhook(email="ada@example.org"))
    harness.deliver()

    assert len(harness.raised(IdentityRegistered)) == 1
    with pytest.raises(
        InvalidApplication, match="SendWelcomeEmail asks for Mail: give the harness"
    ):
        harness.consumed(SendWelcomeEmail)


def test_a_consumer_that_is_not_subscribed_is_pointed_out(harness: Harness) -> None:
    class Another(WaitForMorning):
        name = "Another"

    with pytest.raises(InvalidApplication, match="Another is not subscribed to anything"):
        harness.failed(Another)


def test_an_application_that_the_service_would_refuse_is_refused() -> None:
    wrong = Application(subscriptions={}, adapters={Mail: RecordingMail})  # type: ignore[arg-type]  # wrong

    with pytest.raises(InvalidApplication, match="its adapters are no list of serve"):
        Harness(wrong)


def test_the_hooks_label_says_what_the_identity_does_not(harness: Harness) -> None:
    ada = webhook("registration", email="ada@example.org")
    for each in (
        ada,
        webhook("login", after=ada),
        webhook("settings", after=ada, hook="settings.after.totp"),
        webhook("recovery", after=ada),
        webhook("login", after=ada, hook="my-own-label"),
    ):
        harness.receive(each)
    harness.deliver()

    assert [each.method for each in harness.raised(IdentityLoggedIn)] == ["password"]
    assert [each.method for each in harness.raised(IdentityCredentialsChanged)] == ["totp"]
    assert [each.method for each in harness.raised(IdentityRecovered)] == [None]


def test_the_labels_that_a_real_kratos_sent_say_what_was_done(harness: Harness) -> None:
    for each in recorded_webhooks():
        harness.receive(each)
    harness.deliver(expect_failures=True)

    labels = [each.hook for each in recorded_webhooks()]
    assert len(harness.raised(IdentityLoggedIn)) == sum(
        each.startswith("login.") for each in labels
    )
    assert len(harness.raised(IdentityRecovered)) == sum(
        each.startswith("recovery.") for each in labels
    )
    assert {each.method for each in harness.raised(IdentityCredentialsChanged)} == {
        each.removeprefix("settings.after.")
        for each in labels
        if each.startswith("settings.after.") and each != "settings.after.profile"
    }


def test_of_a_deleted_identity_a_late_login_says_nothing(harness: Harness) -> None:
    ada = webhook(email="ada@example.org")
    received = harness.receive(ada)
    harness.deliver()
    harness.publish(KratosIdentityGone(uuid4(), received.date_occurred, ada.identity_id))
    harness.deliver()
    harness.receive(webhook("login", after=ada))
    harness.deliver()

    assert harness.raised(IdentityLoggedIn) == []
