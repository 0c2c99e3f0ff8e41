"""Whether OpenTelemetry's own environment variables ask for what this process exports by OTLP."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final, Literal

PROTOCOL: Final = "http/protobuf"
Signal = Literal["METRICS", "TRACES"]


def is_wanted(signal: Signal, environment: Mapping[str, str]) -> bool:
    """Whether there is an endpoint for it, and nothing switches it off."""
    exporters = environment.get(f"OTEL_{signal}_EXPORTER", "").strip() or "otlp"
    return (
        bool(_specific(signal, "ENDPOINT", environment))
        and environment.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and "otlp" in {name.strip() for name in exporters.split(",")}
    )


def why_not(signal: Signal, environment: Mapping[str, str]) -> str | None:
    """Why it cannot be exported, in one sentence; None if it can."""
    protocol = _specific(signal, "PROTOCOL", environment) or PROTOCOL
    if protocol != PROTOCOL:
        return f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}, and only {PROTOCOL} is supported"
    if not _is_installed("opentelemetry.exporter.otlp.proto.http"):
        return "kratos-identity-sync is installed without its extra otel"
    return None


def _specific(signal: Signal, name: str, environment: Mapping[str, str]) -> str:
    own = environment.get(f"OTEL_EXPORTER_OTLP_{signal}_{name}", "").strip()
    return own or environment.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
