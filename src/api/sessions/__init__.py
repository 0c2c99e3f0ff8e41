"""Kratos' sessions for applications on Starlette: who is it that calls?"""

from api.sessions.backend import KratosSessionBackend
from api.sessions.errors import KratosAway, SecondFactorRequired, session_error_response
from api.sessions.session import KratosSession, KratosUser

__all__ = [
    "KratosAway",
    "KratosSession",
    "KratosSessionBackend",
    "KratosUser",
    "SecondFactorRequired",
    "session_error_response",
]
