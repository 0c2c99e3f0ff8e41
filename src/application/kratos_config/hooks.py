"""Where Kratos runs hooks, what a hook says, and the hooks that call this service."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from kratos_sync.application.kratos_config.findings import Finding, finding
from kratos_sync.application.kratos_config.nodes import (
    Map,
    Path,
    items_at,
    line_at,
    text_at,
    truth_at,
    value_at,
)

FLOWS_PATH: Final = ("selfservice", "flows")

IGNORED_HOOKS: Final = ("organization", "b2b_sso")
"""Hooks of the Ory Network, which the open-source Kratos allows and does not run."""
BEFORE: Final = ("web_hook", *IGNORED_HOOKS)
"""The hooks that may stand before a flow."""

_VERIFY: Final = "show_verification_ui"
_REVOKE: Final = "revoke_active_sessions"
_REGISTERED: Final = (*BEFORE, "session", _VERIFY, "two_step_registration")
_LOGGED_IN: Final = (*BEFORE, _REVOKE, "require_verified_address", "verification", _VERIFY)
_CHANGED: Final = (*BEFORE, _REVOKE)
_PROFILE: Final = (*BEFORE, _VERIFY, "verify_new_address", "notify_previous_addresses")
_FIRST_FACTORS: Final = ("password", "webauthn", "passkey", "oidc", "code")
_CREDENTIALS: Final = ("password", "totp", "oidc", "webauthn", "passkey", "lookup_secret")

HOOKS: Final[Mapping[str, Mapping[str | None, tuple[str, ...]]]] = {
    "registration": {None: BEFORE, **dict.fromkeys(_FIRST_FACTORS, _REGISTERED)},
    "login": dict.fromkeys((None, *_FIRST_FACTORS, "totp", "lookup_secret"), _LOGGED_IN),
    "settings": {None: BEFORE, "profile": _PROFILE, **dict.fromkeys(_CREDENTIALS, _CHANGED)},
    "verification": {None: BEFORE},
    "recovery": {None: _CHANGED},
}
"""By flow, the hooks that may stand directly under its `after` (None), and under each method."""
KNOWN_HOOKS: Final = frozenset(
    name for methods in HOOKS.values() for names in methods.values() for name in names
)
HOOKS_THAT_RUN: Final = KNOWN_HOOKS - {
    *IGNORED_HOOKS,
    "verify_new_address",
    "two_step_registration",
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
    """A flow, and the method that people use in it; None is any method."""

    flow: str
    method: str | None = None

    def __str__(self) -> str:
        return ".".join(filter(None, (self.flow, "after", self.method)))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its list of hooks."""
        own = () if self.method is None else (self.method,)
        return (*FLOWS_PATH, self.flow, "after", *own, "hooks")


PLACES: Final = tuple(Place(flow, method) for flow, methods in HOOKS.items() for method in methods)


def keys_before(flow: str) -> tuple[str, ...]:
    """The keys of the list of hooks before a flow."""
    return (*FLOWS_PATH, flow, "before", "hooks")


def is_on(root: Map, place: Place) -> bool:
    """Whether people can use a place, as far as the file says; defaults are Kratos'."""
    flow, method = place.flow, place.method
    if flow not in ("login", "settings"):
        default = flow == "registration"
        if not truth_at(root, *FLOWS_PATH, flow, "enabled", default=default):
            return False
    if method is None:
        return True
    keys = ("selfservice", "methods", method)
    if method == "code":
        second = flow == "login" and truth_at(root, *keys, "mfa_enabled")
        return second or truth_at(root, *keys, "passwordless_enabled")
    on = truth_at(root, *keys, "enabled", default=method in _ON_BY_DEFAULT)
    if (flow, method) == ("registration", "webauthn"):
        return on and truth_at(root, *keys, "config", "passwordless")
    return on


SYNC_PATH: Final = "/kratos/sync-identity"
_ORIGIN: Final = re.compile(r"https?://[^\s/?#]+(?=[/?#]|$)", re.IGNORECASE)
FILLED_IN: Final = ("$", "{{")
"""How a value begins that another tool replaces before Kratos reads it."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """This service as Kratos should call it: the header of the key, and the URL if not our path."""

    header: str = "X-Api-Key"
    url: str | None = None

    def is_called_by(self, url: str) -> bool:
        """Whether a webhook with that URL is meant for this service."""
        try:
            path = urlsplit(url).path
        except ValueError:
            path = ""
        return url == self.url or path.rstrip("/").endswith(SYNC_PATH)


@dataclass(frozen=True, slots=True, eq=False)
class Hook:
    """One item of a list of hooks."""

    name: str
    node: Map
    path: Path

    @property
    def config(self) -> Map | None:
        """Its settings."""
        found = value_at(self.node, "config")
        return found if isinstance(found, Map) else None

    def text(self, *keys: str) -> str | None:
        """The text of the setting under these keys."""
        return text_at(self.config, *keys)

    @property
    def is_ignored(self) -> bool:
        """Whether Kratos does not wait for the response."""
        return truth_at(self.config, "response", "ignore")

    @property
    def interrupts(self) -> bool:
        """Whether it may refuse or change what is about to be stored."""
        parses = truth_at(self.config, "response", "parse")
        return parses or truth_at(self.config, "can_interrupt")

    @property
    def is_web_hook(self) -> bool:
        """Whether it makes an HTTP call."""
        return self.name == "web_hook"

    def is_for(self, receiver: Receiver) -> bool:
        """Whether it is meant to send identities to this service."""
        url = self.text("url")
        return self.is_web_hook and url is not None and receiver.is_called_by(url)

    def finding(self, rule: str, *keys: str, **values: str) -> Finding:
        """A finding about the hook, or about its setting under these keys."""
        place = ("config", *keys) if keys else ()
        return finding(rule, line_at(self.node, *place), (*self.path, *place), **values)


def read_hooks(root: Map, keys: tuple[str, ...]) -> Iterator[Hook]:
    """The hooks of the list under these keys; whatever is no hook is left out."""
    for index, item in enumerate(items_at(root, *keys)):
        name = text_at(item, "hook")
        if isinstance(item, Map) and name is not None:
            yield Hook(name, item, (*keys, index))


def split(url: str) -> SplitResult | None:
    """The parts of an http or https URL; None for anything else, as for blanks in its host."""
    try:
        parts = urlsplit(url)
        has_host = _ORIGIN.match(url) and url.isprintable() and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if has_host else None


def configuration(
    url: str, header: str, key: str, body: str, methods: Collection[str], *, with_session: bool
) -> dict[str, Any]:
    """The part of a Kratos configuration that has the hooks, from `selfservice` on.

    `body` is the URL of the template; `methods` get lists of their own.
    """

    def web_hook(place: Place) -> dict[str, Any]:
        api_key = {"in": "header", "name": header, "value": key}
        config = {
            "url": url,
            "method": "POST",
            "headers": {"X-Kratos-Hook": str(place)},
            "auth": {"type": "api_key", "config": api_key},
            "body": body,
            "response": {"ignore": True},
        }
        return {"hook": "web_hook", "config": config}

    flows: dict[str, Any] = {}
    for flow in METHODS:
        after: dict[str, Any] = {"hooks": [web_hook(Place(flow))]}
        for method in (method for method in METHODS[flow] if method in methods):
            after[method] = {"hooks": [web_hook(Place(flow, method))]}
            if with_session and flow == "registration":
                after[method]["hooks"].append({"hook": "session"})
        flows[flow] = {"after": after}
    return {"selfservice": {"flows": flows}}
