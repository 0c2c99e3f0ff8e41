"""Calls that share a commit share its span, and no call owns what comes after it."""

import asyncio

import pytest
from opentelemetry.trace import get_current_span
from pydantic import SecretStr
from sqlalchemy import Engine

from kratos_sync.application.ports.event_bus import Provenance
from kratos_sync.infrastructure.ledger.group_commit import PostgresEventBus
from tests.infrastructure.observability.tracing.traced import (
    ANOTHER,
    CALLER,
    UNSAMPLED,
    Traced,
    linked_to,
    parent_of,
)
from tests.suites.occurrences import updated


@pytest.fixture
def url(engine: Engine) -> SecretStr:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return SecretStr(url)


async def publish_together(bus: PostgresEventBus, *traceparents: str | None) -> None:
    events = [updated(number) for number in range(1, len(traceparents) + 1)]
    provenances = [Provenance("webhook", traceparent=each) for each in traceparents]
    try:
        await asyncio.gather(*map(bus.publish, events, provenances))
    finally:
        await bus.stop()


def test_an_event_that_is_committed_alone_is_part_of_its_call(url: SecretStr) -> None:
    traced = Traced()
    bus = PostgresEventBus(url, lambda: None, spans=traced.tracing.spans)

    asyncio.run(publish_together(bus, CALLER))

    assert traced.only.name == "record kratos_sync.events"
    assert parent_of(traced.only) == CALLER


def test_events_that_share_a_commit_are_linked_to_its_span(url: SecretStr) -> None:
    traced = Traced()
    bus = PostgresEventBus(url, lambda: None, spans=traced.tracing.spans)

    asyncio.run(publish_together(bus, CALLER, UNSAMPLED, None, ANOTHER))

    assert linked_to(traced.only) == [CALLER, ANOTHER]
    assert (traced.only.attributes or {})["messaging.batch.message_count"] == 4


def test_what_follows_a_commit_is_in_no_caller_s_trace(url: SecretStr) -> None:
    traced, seen = Traced(), []

    def wake_relay() -> None:
        seen.append(get_current_span().get_span_context().is_valid)

    bus = PostgresEventBus(url, wake_relay)
    with traced.provider.get_tracer("test").start_as_current_span("call"):
        asyncio.run(publish_together(bus, CALLER))

    assert seen == [False]
