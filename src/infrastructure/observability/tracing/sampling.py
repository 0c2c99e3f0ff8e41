"""Which traces are recorded: callers ask for some, and cannot have more than a cap."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from kratos_sync.application.rate_limiter import RateLimiter
from kratos_sync.infrastructure.observability.tracing import names

RATIO: Final = 0.01
"""The share of traces beyond the cap, where OTEL_TRACES_SAMPLER_ARG sets no other."""
MOST_REMEMBERED: Final = 1_024
AT_ONCE: Final = 1e-6
"""Seconds; the turns of a burst do not end on the same bit."""


class _Bucket:
    """Lets so many traces a second through, and each of them again."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._limiter = (
            RateLimiter(per_second, max(per_second, 1.0), clock) if per_second > 0 else None
        )
        self._admitted = OrderedDict[int, None]()
        self._lock = Lock()

    def admits(self, trace_id: int) -> bool:
        with self._lock:
            if trace_id in self._admitted:
                return True
            if self._limiter is None or self._limiter.take(AT_ONCE) is None:
                return False
            self._remember(trace_id)
            return True

    def remember(self, trace_id: int) -> None:
        with self._lock:
            self._remember(trace_id)

    def _remember(self, trace_id: int) -> None:
        self._admitted[trace_id] = None
        if len(self._admitted) > MOST_REMEMBERED:
            self._admitted.popitem(last=False)


class CappedSampler(Sampler):
    """Follows a caller's sampling flag for at most so many traces a second.

    Kratos continues the trace of a browser, so anybody may ask for sampling. Beyond the cap, and
    for what begins here, ``roots`` and ``beyond`` decide; what a caller does not sample is not
    sampled. A batch that is linked to sampled traces counts as asked for. What libraries call
    outside of any span, such as Redis while a worker waits, is no trace.
    """

    def __init__(
        self,
        per_second: float,
        roots: Sampler | None = None,
        beyond: Sampler | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without ``roots`` as many traces a second are begun here."""
        self._asked_for = _Bucket(per_second, clock)
        self._begun_here = _Bucket(per_second, clock)
        self._roots = roots
        self._beyond = beyond or TraceIdRatioBased(RATIO)

    def should_sample(  # noqa: PLR0917  # as the SDK has it
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,  # noqa: ARG002
    ) -> SamplingResult:
        parent = get_current_span(parent_context).get_span_context()
        state = parent.trace_state if parent.is_valid else None
        if parent.is_valid and not parent.is_remote:
            samples = parent.trace_flags.sampled
        elif parent.is_valid:
            samples = parent.trace_flags.sampled and (
                self._asked_for.admits(trace_id) or _samples(self._beyond, trace_id, name)
            )
        elif kind is SpanKind.CLIENT and names.OPERATION not in (attributes or ()):
            samples = False
        else:
            samples = bool(links) and self._asked_for.admits(trace_id)
            samples = samples or self._begins(trace_id, name)
            if samples:
                self._asked_for.remember(trace_id)
        decision = Decision.RECORD_AND_SAMPLE if samples else Decision.DROP
        return SamplingResult(decision, attributes if samples else None, state)

    def get_description(self) -> str:
        return "CappedSampler"

    def _begins(self, trace_id: int, name: str) -> bool:
        if self._roots is not None:
            return _samples(self._roots, trace_id, name)
        return self._begun_here.admits(trace_id) or _samples(self._beyond, trace_id, name)


def _samples(sampler: Sampler, trace_id: int, name: str) -> bool:
    result = sampler.should_sample(Context(), trace_id, name)
    return result.decision is Decision.RECORD_AND_SAMPLE


def sampler_of(per_second: float, environment: Mapping[str, str] = os.environ) -> Sampler | None:
    """The sampler that OTEL_TRACES_SAMPLER asks for; None leaves the choice to the SDK.

    Those that follow the caller's flag follow it up to the cap.
    """
    wanted = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    ratio = TraceIdRatioBased(_ratio(environment.get("OTEL_TRACES_SAMPLER_ARG")))
    match wanted:
        case "":
            return CappedSampler(per_second)
        case "parentbased_always_on":
            return CappedSampler(per_second, ALWAYS_ON)
        case "parentbased_always_off":
            return CappedSampler(per_second, ALWAYS_OFF, ALWAYS_OFF)
        case "parentbased_traceidratio":
            return CappedSampler(per_second, ratio, ratio)
        case _:
            return None


def _ratio(given: str | None) -> float:
    """As the SDK reads it: everything, where it is no ratio."""
    try:
        ratio = float(given) if given else 1.0
    except ValueError:
        return 1.0
    return ratio if 0.0 <= ratio <= 1.0 else 1.0
