"""Authenticates the requests of Starlette applications by Kratos' sessions."""

from kratos_sync.api.http.sessions.backend import KratosSessionBackend
from kratos_sync.api.http.sessions.whoami import (
    KratosAway,
    KratosSession,
    KratosUser,
    SecondFactorRequired,
    session_error_response,
)

__all__ = [
    "KratosAway",
    "KratosSession",
    "KratosSessionBackend",
    "KratosUser",
    "SecondFactorRequired",
    "session_error_response",
]
