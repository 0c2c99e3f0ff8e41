"""Who decides what is sampled: callers up to a cap, and we beyond it."""

from collections.abc import Callable

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind

from kratos_sync.infrastructure.observability.tracing.contexts import links_to, parent_of
from kratos_sync.infrastructure.observability.tracing.sampling import CappedSampler, sampler_of


class Clock:
    """Stands still unless a test moves it."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


# Spread over the last 64 bits, by which a ratio samples.
def trace_id(number: int) -> int:
    return (number << 64) | (number * 0x9E3779B97F4A7C15 & (1 << 64) - 1)


def asked(number: int, *, sampled: bool = True) -> Context:
    """What a caller sends with its trace."""
    return parent_of(f"00-{trace_id(number):032x}-00f067aa0ba902b7-{sampled:02x}")


def count(sampler: Sampler, number: int, context: Callable[[int], Context], first: int = 1) -> int:
    """How many of so many traces are sampled."""
    return sum(
        sampler.should_sample(context(each), trace_id(each), "x").decision.is_sampled()
        for each in range(first, first + number)
    )


def test_callers_may_ask_for_so_many_traces_a_second_and_no_more() -> None:
    clock = Clock()
    sampler = CappedSampler(10, beyond=ALWAYS_OFF, clock=clock)

    assert count(sampler, 1_000, asked) == 10
    clock.now += 0.5
    assert count(sampler, 1_000, asked, first=5_000) == 5


def test_beyond_the_cap_the_decision_is_ours_by_ratio() -> None:
    sampler = CappedSampler(10, clock=Clock())

    assert 10 < count(sampler, 20_000, asked) < 10 + 400


def test_the_spans_of_a_trace_that_was_admitted_cost_nothing_more() -> None:
    sampler = CappedSampler(1, beyond=ALWAYS_OFF, clock=Clock())

    results = [sampler.should_sample(asked(1), trace_id(1), "x") for _ in range(50)]

    assert all(each.decision.is_sampled() for each in results)


def test_what_a_caller_does_not_sample_is_not_sampled() -> None:
    sampler = CappedSampler(1_000, ALWAYS_ON, ALWAYS_ON, Clock())

    assert count(sampler, 100, lambda each: asked(each, sampled=False)) == 0


def test_strangers_leave_room_for_what_begins_here() -> None:
    sampler = CappedSampler(10, beyond=ALWAYS_OFF, clock=Clock())
    count(sampler, 1_000, asked)

    assert count(sampler, 1_000, lambda _: Context()) == 10


def test_with_no_traces_a_second_nobody_can_ask_for_any() -> None:
    sampler = CappedSampler(0, beyond=ALWAYS_OFF, clock=Clock())

    assert count(sampler, 100, asked) == 0


def test_a_batch_that_is_linked_to_a_sampled_trace_is_asked_for() -> None:
    sampler = CappedSampler(2, roots=ALWAYS_OFF, beyond=ALWAYS_OFF, clock=Clock())
    links = links_to([f"00-{trace_id(1):032x}-00f067aa0ba902b7-01"])

    results = [
        sampler.should_sample(Context(), trace_id(each), "x", SpanKind.CONSUMER, links=links)
        for each in range(5)
    ]

    assert [each.decision.is_sampled() for each in results] == [True, True, False, False, False]


def test_what_a_library_calls_outside_of_a_span_is_no_trace() -> None:
    sampler = CappedSampler(1_000, ALWAYS_ON, clock=Clock())

    def is_sampled(context: Context, **attributes: str) -> bool:
        result = sampler.should_sample(context, trace_id(1), "x", SpanKind.CLIENT, attributes)
        return bool(result.decision.is_sampled())

    assert not is_sampled(Context())
    assert is_sampled(Context(), **{"kratos_sync.operation": "page"})
    assert is_sampled(asked(1))


def sampled_of(environment: dict[str, str], context: Callable[[int], Context]) -> int:
    sampler = sampler_of(10, environment)
    assert sampler is not None
    return count(sampler, 10_000, context)


@pytest.mark.parametrize(
    ("wanted", "argument", "begun", "asked_for"),
    [
        ("parentbased_always_on", "", range(10_000, 10_001), range(50, 250)),
        ("parentbased_always_off", "", range(1), range(10, 50)),
        ("parentbased_traceidratio", "0.1", range(800, 1_200), range(800, 1_300)),
        ("parentbased_traceidratio", "nonsense", range(10_000, 10_001), range(10_000, 10_001)),
        ("", "0.5", range(50, 250), range(50, 250)),
    ],
)
def test_opentelemetrys_own_variables_decide_what_begins_here(
    wanted: str, argument: str, begun: range, asked_for: range
) -> None:
    environment = {"OTEL_TRACES_SAMPLER": wanted, "OTEL_TRACES_SAMPLER_ARG": argument}

    assert sampled_of(environment, lambda _: Context()) in begun
    assert sampled_of(environment, asked) in asked_for


@pytest.mark.parametrize("wanted", ["always_on", "always_off", "traceidratio", "xray"])
def test_a_sampler_that_follows_no_caller_is_the_sdks(wanted: str) -> None:
    assert sampler_of(10, {"OTEL_TRACES_SAMPLER": wanted}) is None
