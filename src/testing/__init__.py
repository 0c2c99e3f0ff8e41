"""For tests of applications: a harness, webhooks, sessions, and Kratos' side of a parse hook."""

from kratos_sync.testing.harness import Failed, Harness
from kratos_sync.testing.parse import Refused, Stored, ask, asked
from kratos_sync.testing.sessions import session
from kratos_sync.testing.webhooks import Webhook, recorded_webhooks, webhook

__all__ = [
    "Failed",
    "Harness",
    "Refused",
    "Stored",
    "Webhook",
    "ask",
    "asked",
    "recorded_webhooks",
    "session",
    "webhook",
]
