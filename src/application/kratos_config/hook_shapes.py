"""What may stand in a setting, and what each hook may hold.

A tuple lists the only texts, a list is one of such values, a dict has these keys; ``!`` ends a key
that must be there, ``*`` is any other key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from application.kratos_config.flows import IGNORED_HOOKS


class Kind(Enum):
    """A scalar, or anything at all."""

    ANY = "anything"
    TEXT = "a text"
    TRUTH = "true or false"
    NUMBER = "a whole number"
    DURATION = "a duration such as 1h or 30s"


@dataclass(frozen=True, slots=True)
class Hooks:
    """A list of hooks, no two alike, of these names."""

    allowed: tuple[str, ...]


Spec: TypeAlias = "Kind | Hooks | tuple[str, ...] | list[Spec] | Mapping[str, Spec]"

ANY, TEXT, TRUTH = Kind.ANY, Kind.TEXT, Kind.TRUTH
NUMBER, DURATION = Kind.NUMBER, Kind.DURATION
REFUSED: Final = "!"
"""Marks a map of which we are sure that Kratos refuses any other key."""

API_KEY: Final[Mapping[str, Spec]] = {
    "type!": ("api_key",),
    "config!": {"in!": ("header", "cookie"), "name!": TEXT, "value!": TEXT},
}
BASIC_AUTH: Final[Mapping[str, Spec]] = {
    "type!": ("api_key", "basic_auth"),
    "config!": {"user!": TEXT, "password!": TEXT},
}
AUTH_KEYS: Final = ("in", "name", "value", "user", "password")
_REQUEST: Final[dict[str, Spec]] = {
    "id": TEXT,
    "url!": TEXT,
    "method!": TEXT,
    "headers": {"*": TEXT},
    "body": TEXT,
    "auth": API_KEY,
}
HOOK_SHAPES: Final[Mapping[str, Spec]] = {
    "web_hook": {
        "hook": TEXT,
        "config": {
            **_REQUEST,
            "response": {"ignore": TRUTH, "parse": TRUTH},
            "can_interrupt": TRUTH,
            "emit_analytics_event": TRUTH,
        },
    },
    "notify_previous_addresses": {
        "hook": TEXT,
        "config": {"recipients": ("removed", "all_verified", "all"), "*": ANY},
    },
    **{name: {"hook": TEXT, "config": ANY} for name in IGNORED_HOOKS},
}
"""By name; any other hook has nothing but its name."""
PLAIN_HOOK: Final[Spec] = {"hook": TEXT, REFUSED: ANY}
