"""Errors reported to Sentry, where SENTRY_DSN is set: types and places, no texts."""
