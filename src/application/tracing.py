"""W3C Trace Context, as far as it is handed on from a webhook to the log lines it causes."""


def trace_id(traceparent: str | None) -> str | None:
    """Give the trace id of a ``traceparent`` header (version-traceid-parentid-flags)."""
    parts = traceparent.split("-") if traceparent else []
    return parts[1] if len(parts) >= 4 else None  # noqa: PLR2004
