"""A hook as it is configured, and who of us it calls."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from kratos_sync.application.kratos_config.flows import IGNORED_HOOKS
from kratos_sync.application.kratos_config.nodes import (
    Entry,
    Items,
    Map,
    Node,
    Path,
    Text,
    at,
    text_at,
    truth_at,
)

SYNC_PATH: Final = "/kratos/sync-identity"
PARSE_PATH: Final = "/kratos/parse-identity"
FILLED_IN: Final = ("$", "{{")
"""How a value begins that something else puts there before Kratos reads it."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Us, as Kratos should call us: with the key in this header, at our path or at this URL."""

    header: str = "X-Api-Key"
    url: str | None = None

    def is_called_by(self, url: str) -> bool:
        """Whether a webhook with that URL is meant for us."""
        try:
            path = urlsplit(url).path
        except ValueError:
            path = ""
        return url == self.url or path.rstrip("/").endswith(SYNC_PATH)


@dataclass(frozen=True, slots=True, eq=False)
class Hook:
    """One item of a list of hooks. ``config`` is what it is told, None if it is told nothing."""

    name: str
    node: Map
    path: Path

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.node.line

    @property
    def config(self) -> Map | None:
        """Its settings."""
        found = at(self.node, "config")
        return found.value if found is not None and isinstance(found.value, Map) else None

    @property
    def url(self) -> str | None:
        """Whom a webhook calls."""
        return text_at(self.config, "url")

    @property
    def is_ignored(self) -> bool:
        """Whether nobody waits for the answer."""
        return truth_at(self.config, "response", "ignore")

    @property
    def interrupts(self) -> bool:
        """Whether it may refuse or change what is about to be stored."""
        parses = truth_at(self.config, "response", "parse")
        return parses or truth_at(self.config, "can_interrupt")

    @property
    def is_web_hook(self) -> bool:
        """Whether it calls anybody."""
        return self.name == "web_hook"

    def is_for(self, receiver: Receiver) -> bool:
        """Whether it is meant to tell us what an identity is."""
        return self.is_web_hook and self.url is not None and receiver.is_called_by(self.url)

    def entry(self, *keys: str) -> Entry:
        """Give what the settings have under these keys, or else the nearest thing around it."""
        found = Entry(self.line, self.node)
        for depth in range(len(keys) + 1):
            found = at(self.node, "config", *keys[:depth]) or found
        return found

    def line_of(self, *keys: str) -> int:
        """Give the line of what the settings have under these keys, or else of what is around."""
        return self.entry(*keys).line


def read_hooks(node: Node | None, path: Path) -> Iterator[Hook]:
    """Give the hooks of a list; what is no hook is left out."""
    for index, item in enumerate(node.items if isinstance(node, Items) else ()):
        name = text_at(item, "hook")
        if isinstance(item, Map) and name is not None:
            yield Hook(name, item, (*path, index))


def split(url: str) -> SplitResult | None:
    """Give the parts of an http URL, or None if it is none."""
    try:
        parts = urlsplit(url)
        has_host = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if has_host else None


def is_text(node: Node | None) -> bool:
    """Whether it is a scalar that says something."""
    return isinstance(node, Text) and node.value.strip() != ""


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
