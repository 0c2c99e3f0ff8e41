"""The flows and methods of Kratos that have hooks, and which of them a configuration turns on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kratos_sync.application.kratos_config.nodes import Map, truth_at

FLOWS_PATH: Final = ("selfservice", "flows")
METHODS_PATH: Final = ("selfservice", "methods")

IGNORED_HOOKS: Final = ("organization", "b2b_sso")
"""Hooks of the Ory Network, which the open-source Kratos allows and does not run."""
BEFORE: Final = ("web_hook", *IGNORED_HOOKS)
"""What may stand before a flow."""

_REGISTERED: Final = (*BEFORE, "session", "show_verification_ui", "two_step_registration")
_LOGGED_IN: Final = (
    *BEFORE,
    *("revoke_active_sessions", "require_verified_address", "verification", "show_verification_ui"),
)
_CHANGED: Final = (*BEFORE, "revoke_active_sessions")
_PROFILE: Final = (
    *BEFORE,
    *("show_verification_ui", "verify_new_address", "notify_previous_addresses"),
)

HOOKS: Final[Mapping[str, Mapping[str | None, tuple[str, ...]]]] = {
    "registration": {
        None: BEFORE,
        **dict.fromkeys(("password", "webauthn", "passkey", "oidc", "code"), _REGISTERED),
    },
    "login": dict.fromkeys(
        (None, "password", "webauthn", "passkey", "oidc", "code", "totp", "lookup_secret"),
        _LOGGED_IN,
    ),
    "settings": {
        None: BEFORE,
        "profile": _PROFILE,
        **dict.fromkeys(
            ("password", "totp", "oidc", "webauthn", "passkey", "lookup_secret"), _CHANGED
        ),
    },
    "verification": {None: BEFORE},
    "recovery": {None: _CHANGED},
}
"""By flow, the hooks that may stand directly under its ``after`` (None), and under each method."""
KNOWN_HOOKS: Final = frozenset(
    name for methods in HOOKS.values() for names in methods.values() for name in names
)
HOOKS_THAT_RUN: Final = KNOWN_HOOKS - {
    *IGNORED_HOOKS,
    *("verify_new_address", "two_step_registration"),
}
"""The hooks after something is stored: one under a method replaces the list of the flow."""
METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    flow: tuple(method for method in methods if method is not None)
    for flow, methods in HOOKS.items()
}
"""By flow, the methods whose hooks replace those of the flow; the last two flows have none."""
ALL_METHODS: Final = tuple(dict.fromkeys(m for methods in METHODS.values() for m in methods))
STORED_BY_FLOW: Final = ("registration", "settings")
"""The flows that store the identity: a hook that parses runs before that, and only there."""

_ON_BY_DEFAULT: Final = ("password", "profile")


@dataclass(frozen=True, slots=True)
class Place:
    """Where people come through: a flow, and the method by which they do; None for any."""

    flow: str
    method: str | None = None

    def __str__(self) -> str:
        return ".".join(filter(None, (self.flow, "after", self.method)))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that lead to the list of its hooks."""
        own = () if self.method is None else (self.method,)
        return (*FLOWS_PATH, self.flow, "after", *own, "hooks")


def flow_is_on(root: Map, flow: str) -> bool:
    """Whether people can come through a flow at all."""
    if flow in ("login", "settings"):
        return True
    return truth_at(root, *FLOWS_PATH, flow, "enabled", default=flow == "registration")


def is_on(root: Map, place: Place) -> bool:
    """Whether people can come through a place, as far as the file says; defaults are Kratos'."""
    if not flow_is_on(root, place.flow):
        return False
    if place.method is None:
        return True
    method = (*METHODS_PATH, place.method)
    if place.method == "code":
        second = place.flow == "login" and truth_at(root, *method, "mfa_enabled")
        return second or truth_at(root, *method, "passwordless_enabled")
    on = truth_at(root, *method, "enabled", default=place.method in _ON_BY_DEFAULT)
    if (place.flow, place.method) == ("registration", "webauthn"):
        return on and truth_at(root, *method, "config", "passwordless")
    return on
