"""The settings that Kratos knows, as a table, and those that it refuses or does not see.

The table is a short form of `embedx/config.schema.json` of ory/kratos.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from typing import Final, TypeAlias

from kratos_sync.application.kratos_config.findings import Finding, finding
from kratos_sync.application.kratos_config.hooks import (
    BEFORE,
    FILLED_IN,
    HOOKS,
    IGNORED_HOOKS,
    KNOWN_HOOKS,
    PLACES,
    Hook,
)
from kratos_sync.application.kratos_config.nodes import (
    Items,
    Kind,
    Map,
    Node,
    Path,
    Text,
    at,
    is_null,
    kind_of,
    text_at,
    value_of,
)


@dataclass(frozen=True, slots=True)
class Hooks:
    """A list of hooks of these names, no two alike."""

    allowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """A map. A key that is not known is of the kind `others`, or else refused, or else doubtful."""

    known: Mapping[str, "Spec"]
    required: tuple[str, ...] = ()
    others: "Spec | None" = None
    is_refusing: bool = False


Spec: TypeAlias = "Kind | Hooks | Keys | tuple[str, ...] | list[Spec]"
"""A tuple is a choice of texts; a list has items of one kind."""

ANY, TEXT, TRUTH, NUMBER, DURATION = Kind


def _keys(
    required: str = "",
    *,
    text: str = "",
    texts: str = "",
    truth: str = "",
    number: str = "",
    duration: str = "",
    anything: str = "",
    more: "Mapping[str, Spec] | None" = None,
    others: "Spec | None" = None,
    **nested: "Spec",
) -> Keys:
    """Keys by the kind of their values: `text="id url"` are two texts."""
    kinds: list[Spec] = [TEXT, [TEXT], TRUTH, NUMBER, DURATION, ANY]
    by_kind = zip((text, texts, truth, number, duration, anything), kinds, strict=True)
    known = {name: kind for names, kind in by_kind for name in names.split()}
    return Keys({**(more or {}), **known, **nested}, tuple(required.split()), others)


_some: Final = partial(_keys, others=ANY)
"""The keys that matter here, and any others."""

_API_KEY: Final = _keys(
    "type config",
    type=("api_key",),
    config=_keys("in name value", text="name value", more={"in": ("header", "cookie")}),
)
_BASIC_AUTH: Final = _keys(
    "type config",
    type=("api_key", "basic_auth"),
    config=_keys("user password", text="user password"),
)
_RESPONSE: Final = _keys(truth="ignore parse")
_WEB_HOOK: Final = _keys(
    "url method",
    text="id url method body",
    truth="can_interrupt emit_analytics_event",
    headers=_keys(others=TEXT),
    auth=_API_KEY,
    response=_RESPONSE,
)
_HOOKS: Final[Mapping[str, Keys]] = {
    "web_hook": _keys(text="hook", config=_WEB_HOOK),
    "notify_previous_addresses": _keys(
        text="hook", config=_some(recipients=("removed", "all_verified", "all"))
    ),
    **dict.fromkeys(IGNORED_HOOKS, _keys(text="hook", config=ANY)),
}
_PLAIN_HOOK: Final = Keys({"hook": TEXT}, is_refusing=True)
"""Any other hook has nothing but its name."""

_LINK_OR_CODE: Final = _keys(
    text="ui_url",
    truth="enabled notify_unknown_recipients",
    duration="lifespan",
    use=("link", "code"),
)
_AAL: Final = ("aal1", "highest_available")
_FLOWS: Final[Mapping[str, Keys]] = {
    "registration": _keys(
        text="ui_url",
        truth="enabled login_hints enable_legacy_one_step",
        duration="lifespan",
        style=("unified", "profile_first"),
    ),
    "login": _keys(text="ui_url", duration="lifespan", style=("unified", "identifier_first")),
    "settings": _keys(
        text="ui_url", duration="lifespan privileged_session_max_age", required_aal=_AAL
    ),
    "verification": _LINK_OR_CODE,
    "recovery": _LINK_OR_CODE,
}


def _flow(name: str) -> Keys:
    after: dict[str, Spec] = {"default_browser_return_url": TEXT}
    for method, allowed in HOOKS[name].items():
        if method is None:
            after["hooks"] = Hooks(allowed)
        else:
            own: dict[str, Spec] = {"default_browser_return_url": TEXT, "hooks": Hooks(allowed)}
            after[method] = Keys(own, is_refusing=True)
    before = Keys({"hooks": Hooks(BEFORE)}, is_refusing=True)
    return Keys({**_FLOWS[name].known, "before": before, "after": Keys(after, is_refusing=True)})


_OPEN: Final = _some()
_ON_OFF: Final = _keys(truth="enabled", config=_OPEN)
_RP: Final = _some(text="id display_name origin", texts="origins")
_PROVIDER: Final = _some(
    "id provider", text="id provider client_id client_secret mapper_url", texts="scope"
)
_PASSWORD: Final = _some(
    text="haveibeenpwned_host",
    truth="haveibeenpwned_enabled ignore_network_errors identifier_similarity_check_enabled",
    number="max_breaches min_password_length",
)
_METHODS: Final = _keys(
    profile=_some(truth="enabled"),
    link=_ON_OFF,
    code=_keys(
        truth="enabled passwordless_enabled passwordless_login_fallback_enabled mfa_enabled",
        config=_some(duration="lifespan"),
    ),
    password=_keys(truth="enabled", config=_PASSWORD),
    totp=_keys(truth="enabled", config=_some(text="issuer")),
    lookup_secret=_some(truth="enabled"),
    webauthn=_keys(truth="enabled", config=_some(truth="passwordless", rp=_RP)),
    passkey=_keys(truth="enabled", config=_some(rp=_RP)),
    oidc=_keys(truth="enabled", config=_some(text="base_redirect_uri", providers=[_PROVIDER])),
    saml=_ON_OFF,
    deviceauthn=_ON_OFF,
    b2b=_OPEN,
    captcha=_OPEN,
)
_server: Final = partial(
    _keys,
    text="base_url host",
    number="port",
    request_log=_keys(truth="disable_for_health"),
    socket=_keys(text="owner group", number="mode"),
    tls=_OPEN,
)
_LEVELS: Final = ("trace", "debug", "info", "warning", "error", "fatal", "panic")
_SAME_SITE: Final = ("Strict", "Lax", "None")
SETTINGS: Final = _keys(
    text="version dsn",
    texts="config",
    truth="dev help sqa-opt-out watch-courier",
    number="expose-metrics-port",
    anything="database oauth2_provider preview tracing feature_flags security enterprise revision"
    " profiling sqa scim captcha",
    organizations=[ANY],
    selfservice=_keys(
        text="default_browser_return_url",
        texts="allowed_return_urls",
        flows=_keys(
            more={name: _flow(name) for name in HOOKS},
            logout=_keys(after=_keys(text="default_browser_return_url")),
            error=_keys(text="ui_url"),
        ),
        methods=_METHODS,
    ),
    identity=_some(text="default_schema_id", schemas=[_some("id url", text="id url")]),
    serve=_some(
        admin=_server(), public=_server(cors=_some(truth="enabled", texts="allowed_origins"))
    ),
    secrets=_some(texts="default cookie cipher"),
    session=_some(
        duration="lifespan earliest_possible_extend",
        cookie=_some(text="domain name path", truth="persistent", same_site=_SAME_SITE),
        whoami=_some(required_aal=_AAL),
    ),
    cookies=_some(text="domain path", same_site=_SAME_SITE),
    courier=_some(
        text="template_override_path",
        number="message_retries",
        smtp=_some(text="connection_uri from_address from_name"),
        delivery_strategy=("smtp", "http"),
    ),
    log=_some(
        text="redaction_text",
        truth="leak_sensitive_values",
        level=_LEVELS,
        format=("json", "text"),
    ),
    hashers=_some(algorithm=("argon2", "bcrypt"), bcrypt=_keys(number="cost"), argon2=_OPEN),
    ciphers=_some(algorithm=("noop", "aes", "xchacha20-poly1305")),
    clients=_some(
        http=_some(truth="disallow_private_ip_ranges", texts="private_ip_exception_urls"),
        web_hook=_some(texts="header_allowlist"),
    ),
)

_BELONGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("in", "name", "value", "user", "password"), "config.auth.config"),
    **dict.fromkeys(_RESPONSE.known, "config.response"),
    **dict.fromkeys(_WEB_HOOK.known.keys() - {"id"}, "config"),
}
"""By key of a webhook, the place in the hook that it belongs into."""
_TEMPLATE_NAMES: Final = ("data", "template", "payload", "jsonnet", "mapper")
_LONGEST_NAME: Final = 40
_MOST_GUESSES: Final = 200
_DURATION: Final = re.compile(r"([0-9]+(ns|us|ms|s|m|h))+")


def findings_of_settings(root: Map) -> Iterator[Finding]:
    """The settings that Kratos refuses to start with, or does not see."""
    yield from _Comparison().of(root, SETTINGS, (), root.line)


class _Comparison:
    def __init__(self) -> None:
        self._guesses_left = _MOST_GUESSES

    def of(self, node: Node, spec: Spec, path: Path, line: int) -> Iterator[Finding]:
        """Compare a value with what may stand there; `line` is its key's."""
        if spec is ANY:
            return
        if is_null(node):
            yield finding("null", line, path)
        elif isinstance(spec, Keys):
            if isinstance(node, Map):
                yield from self._map(node, spec, path, line)
            else:
                yield _wrong_type("a map", line, path)
        elif isinstance(spec, list | Hooks):
            if not isinstance(node, Items):
                yield _wrong_type("a list", line, path)
            elif isinstance(spec, Hooks):
                yield from self._hooks(node, spec, path)
            else:
                for index, item in enumerate(node.items):
                    yield from self.of(item, spec[0], (*path, index), item.line)
        else:
            yield from _of_scalar(node, spec, path, line)

    def _map(self, node: Map, spec: Keys, path: Path, line: int) -> Iterator[Finding]:
        if spec is _API_KEY and text_at(node, "type") == "basic_auth":
            spec = _BASIC_AUTH
        for name, entry in node.entries.items():
            known = spec.known.get(name) or spec.others
            if known is not None:
                yield from self.of(entry.value, known, (*path, name), entry.line)
            else:
                rule, values = self._unknown(name, node, spec, path)
                yield finding(rule, entry.line, (*path, name), **values)
        for name in spec.required:
            if name not in node.entries:
                yield finding("required-key", line, path, name=name)

    def _unknown(
        self, name: str, node: Map, spec: Keys, path: Path
    ) -> tuple[str, Mapping[str, str]]:
        """The rule for a key that is not known, and what its sentences name."""
        is_in_hook = any(isinstance(p, int) and before == "hooks" for before, p in pairwise(path))
        if is_in_hook and name in _BELONGS:
            return "misplaced-key", {"name": name, "place": _BELONGS[name]}
        if name in _TEMPLATE_NAMES and path[-1:] == ("config",) and at(node, "body") is None:
            return "misplaced-key:template", {"name": name}
        if self._guesses_left and len(name) <= _LONGEST_NAME:
            self._guesses_left -= 1
            if meant := get_close_matches(name, list(spec.known), 1, 0.75):
                return "misspelt-key", {"meant": meant[0]}
        if spec.is_refusing:
            return "refused-key", {"known": ", ".join(spec.known)}
        return "unknown-key", {}

    def _hooks(self, node: Items, spec: Hooks, path: Path) -> Iterator[Finding]:
        seen: set[object] = set()
        for index, item in enumerate(node.items):
            name = text_at(item, "hook")
            if not isinstance(item, Map) or name is None:
                yield finding("no-hook", item.line, (*path, index))
                continue
            hook = Hook(name, item, (*path, index))
            if name not in KNOWN_HOOKS:
                yield hook.finding("unknown-hook")
            elif name not in spec.allowed:
                yield _not_allowed(hook, spec)
            value = value_of(item)
            if value in seen:
                yield hook.finding("repeated-hook")
            seen.add(value)
            if name in KNOWN_HOOKS:
                yield from self.of(item, _HOOKS.get(name, _PLAIN_HOOK), hook.path, item.line)
            if hook.is_web_hook and at(item, "config") is None:
                yield hook.finding("no-config")
            if hook.is_web_hook and at(hook.config, "can_interrupt") is not None:
                yield hook.finding("can-interrupt", "can_interrupt")


def _not_allowed(hook: Hook, spec: Hooks) -> Finding:
    allowed = ", ".join(name for name in spec.allowed if name not in IGNORED_HOOKS)
    places = ", ".join(
        str(place) for place in PLACES if hook.name in HOOKS[place.flow][place.method]
    )
    return hook.finding("hook-not-allowed", name=hook.name, allowed=allowed, places=places)


def _of_scalar(
    node: Node, spec: Kind | tuple[str, ...], path: Path, line: int
) -> Iterator[Finding]:
    wanted = TEXT if spec is DURATION or isinstance(spec, tuple) else spec
    if not isinstance(node, Text):
        yield _wrong_type(spec.value if isinstance(spec, Kind) else "a text", line, path)
    elif node.value.lstrip().startswith(FILLED_IN):
        return
    elif kind_of(node) is not wanted:
        yield _wrong_type(wanted.value, line, path, _REMEDIES[wanted])
    elif isinstance(spec, tuple) and node.value not in spec:
        yield finding("wrong-value:choice", line, path, choice=", ".join(spec))
    elif spec is DURATION and not _DURATION.fullmatch(node.value):
        yield finding("wrong-value:duration", line, path)


_REMEDIES: Final = {
    TEXT: "Put the value in quotes.",
    TRUTH: "Write true or false, without quotes; yes, no, on and off are texts.",
    NUMBER: "Write a whole number, without quotes.",
}


def _wrong_type(
    expected: str,
    line: int,
    path: Path,
    remedy: str = "See Kratos' reference of its configuration.",
) -> Finding:
    return finding("wrong-type", line, path, expected=expected, remedy=remedy)
