"""Authenticates the requests of Starlette applications by Kratos' sessions."""

from kratos_sync.api.http.sessions.backend import KratosSessionBackend
from kratos_sync.api.http.sessions.whoami import (
    KratosAway,
    KratosUser,
    SecondFactorRequired,
    SessionFunctionFailed,
    session_error_response,
)
from kratos_sync.domain.session import KratosSession

__all__ = [
    "KratosAway",
    "KratosSession",
    "KratosSessionBackend",
    "KratosUser",
    "SecondFactorRequired",
    "SessionFunctionFailed",
    "session_error_response",
]
