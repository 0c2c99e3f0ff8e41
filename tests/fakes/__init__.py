"""Fakes of the ports: each passes the same suite as the real adapter of its name."""
