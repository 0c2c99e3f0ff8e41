"""The flows and methods of Kratos that have hooks, and which of them a configuration turns on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from application.kratos_config.nodes import Map, at, truth_at

FLOWS_PATH: Final = ("selfservice", "flows")
METHODS_PATH: Final = ("selfservice", "methods")

METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "registration": ("password", "webauthn", "passkey", "oidc", "code"),
    "login": ("password", "webauthn", "passkey", "oidc", "code", "totp", "lookup_secret"),
    "settings": ("profile", "password", "totp", "oidc", "webauthn", "passkey", "lookup_secret"),
    "verification": (),
    "recovery": (),
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


def methods_of(root: Map, flow: str) -> tuple[str, ...]:
    """Give the methods of a flow: those we know, and those that the file has hooks for besides."""
    known = METHODS[flow]
    after = at(root, *FLOWS_PATH, flow, "after")
    if not known or after is None or not isinstance(after.value, Map):
        return known
    others = (
        name
        for name, entry in after.value.entries.items()
        if name not in ALL_METHODS and at(entry.value, "hooks") is not None
    )
    return (*known, *others)
