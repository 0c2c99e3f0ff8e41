"""Traces with OpenTelemetry. Only `start` may be imported where none are wanted."""
