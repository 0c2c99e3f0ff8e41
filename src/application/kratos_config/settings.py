"""The settings that Kratos knows, as a table, and those that it refuses or does not see.

The table is a short form of `embedx/config.schema.json` of ory/kratos.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import Final, TypeAlias

from kratos_sync.application.kratos_config.findings import Finding, Judgement, finding, judgement
from kratos_sync.application.kratos_config.hooks import (
    BEFORE,
    FILLED_IN,
    HOOKS,
    IGNORED_HOOKS,
    KNOWN_HOOKS,
    Hook,
    Place,
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
    truth: str = "",
    number: str = "",
    duration: str = "",
    more: "Mapping[str, Spec] | None" = None,
    others: "Spec | None" = None,
    **nested: "Spec",
) -> Keys:
    """Keys by the kind of their values: `text="id url"` are two texts."""
    known: dict[str, Spec] = dict(more or {})
    for names, kind in ((text, TEXT), (truth, TRUTH), (number, NUMBER), (duration, DURATION)):
        known |= dict.fromkeys(names.split(), kind)
    return Keys(known | nested, tuple(required.split()), others)


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
_WEB_HOOK: Final = _keys(
    "url method",
    text="id url method body",
    truth="can_interrupt emit_analytics_event",
    headers=_keys(others=TEXT),
    auth=_API_KEY,
    response=_keys(truth="ignore parse"),
)
_HOOKS: Final[Mapping[str, Keys]] = {
    "web_hook": _keys(text="hook", config=_WEB_HOOK),
    "notify_previous_addresses": _keys(
        text="hook", config=_keys(recipients=("removed", "all_verified", "all"), others=ANY)
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
    hooks: dict[str, Spec] = {"before": before, "after": Keys(after, is_refusing=True)}
    return Keys({**_FLOWS[name].known, **hooks})


_OPEN: Final = _keys(others=ANY)
_ON_OFF: Final = _keys(truth="enabled", config=_OPEN)
_RP: Final = _keys(text="id display_name origin", origins=[TEXT], others=ANY)
_METHODS: Final = _keys(
    profile=_keys(truth="enabled", others=ANY),
    link=_ON_OFF,
    code=_keys(
        truth="enabled passwordless_enabled passwordless_login_fallback_enabled mfa_enabled",
        config=_keys(duration="lifespan", others=ANY),
    ),
    password=_keys(
        truth="enabled",
        config=_keys(
            text="haveibeenpwned_host",
            truth="haveibeenpwned_enabled ignore_network_errors"
            " identifier_similarity_check_enabled",
            number="max_breaches min_password_length",
            others=ANY,
        ),
    ),
    totp=_keys(truth="enabled", config=_keys(text="issuer", others=ANY)),
    lookup_secret=_keys(truth="enabled", others=ANY),
    webauthn=_keys(truth="enabled", config=_keys(truth="passwordless", rp=_RP, others=ANY)),
    passkey=_keys(truth="enabled", config=_keys(rp=_RP, others=ANY)),
    oidc=_keys(
        truth="enabled",
        config=_keys(
            text="base_redirect_uri",
            providers=[
                _keys(
                    "id provider",
                    text="id provider client_id client_secret mapper_url",
                    scope=[TEXT],
                    others=ANY,
                )
            ],
            others=ANY,
        ),
    ),
    saml=_ON_OFF,
    deviceauthn=_ON_OFF,
    b2b=_OPEN,
    captcha=_OPEN,
)
_SERVER: Final = _keys(
    text="base_url host",
    number="port",
    request_log=_keys(truth="disable_for_health"),
    socket=_keys(text="owner group", number="mode"),
    tls=_OPEN,
)
_CORS: Final = _keys(truth="enabled", allowed_origins=[TEXT], others=ANY)
_SAME_SITE: Final = ("Strict", "Lax", "None")
SETTINGS: Final = _keys(
    text="version dsn",
    truth="dev help sqa-opt-out watch-courier",
    number="expose-metrics-port",
    selfservice=_keys(
        text="default_browser_return_url",
        allowed_return_urls=[TEXT],
        flows=_keys(
            more={name: _flow(name) for name in HOOKS},
            logout=_keys(after=_keys(text="default_browser_return_url")),
            error=_keys(text="ui_url"),
        ),
        methods=_METHODS,
    ),
    identity=_keys(
        text="default_schema_id", schemas=[_keys("id url", text="id url", others=ANY)], others=ANY
    ),
    serve=_keys(admin=_SERVER, public=Keys({**_SERVER.known, "cors": _CORS}), others=ANY),
    secrets=_keys(default=[TEXT], cookie=[TEXT], cipher=[TEXT], others=ANY),
    session=_keys(
        duration="lifespan earliest_possible_extend",
        cookie=_keys(text="domain name path", truth="persistent", same_site=_SAME_SITE, others=ANY),
        whoami=_keys(required_aal=_AAL, others=ANY),
        others=ANY,
    ),
    cookies=_keys(text="domain path", same_site=_SAME_SITE, others=ANY),
    courier=_keys(
        text="template_override_path",
        number="message_retries",
        smtp=_keys(text="connection_uri from_address from_name", others=ANY),
        delivery_strategy=("smtp", "http"),
        others=ANY,
    ),
    log=_keys(
        text="redaction_text",
        truth="leak_sensitive_values",
        level=("trace", "debug", "info", "warning", "error", "fatal", "panic"),
        format=("json", "text"),
        others=ANY,
    ),
    hashers=_keys(
        algorithm=("argon2", "bcrypt"), bcrypt=_keys(number="cost"), argon2=_OPEN, others=ANY
    ),
    ciphers=_keys(algorithm=("noop", "aes", "xchacha20-poly1305"), others=ANY),
    clients=_keys(
        http=_keys(
            truth="disallow_private_ip_ranges", private_ip_exception_urls=[TEXT], others=ANY
        ),
        web_hook=_keys(header_allowlist=[TEXT], others=ANY),
        others=ANY,
    ),
    config=[TEXT],
    organizations=[ANY],
    more=dict.fromkeys(
        (
            *("database", "oauth2_provider", "preview", "tracing", "feature_flags", "security"),
            *("enterprise", "revision", "profiling", "sqa", "scim", "captcha"),
        ),
        ANY,
    ),
)

_BELONGS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("in", "name", "value", "user", "password"), "config.auth.config"),
    **dict.fromkeys(("ignore", "parse"), "config.response"),
    **dict.fromkeys(
        (
            *("url", "method", "headers", "body", "auth", "response"),
            *("can_interrupt", "emit_analytics_event"),
        ),
        "config",
    ),
}
_TEMPLATE_NAMES: Final = ("data", "template", "payload", "jsonnet", "mapper")
_LONGEST_NAME: Final = 40
_MOST_GUESSES: Final = 200
_DURATION: Final = re.compile(r"([0-9]+(ns|us|ms|s|m|h))+")


def findings_of_settings(root: Map) -> Iterator[Finding]:
    """The settings that Kratos refuses to start with, or does not see."""
    yield from _Comparison().of(root, SETTINGS, ())


class _Comparison:
    def __init__(self) -> None:
        self._guesses_left = _MOST_GUESSES

    def of(self, node: Node, spec: Spec, path: Path, line: int | None = None) -> Iterator[Finding]:
        """Compare a value with what may stand there; `line` is its key's."""
        line = node.line if line is None else line
        if spec is ANY:
            return
        if is_null(node):
            yield finding("null", line, path)
        elif isinstance(spec, Keys):
            if isinstance(node, Map):
                yield from self._map(node, spec, path, line)
            else:
                yield Finding(_wrong_type("a map"), line, path)
        elif isinstance(spec, list | Hooks):
            if not isinstance(node, Items):
                yield Finding(_wrong_type("a list"), line, path)
            elif isinstance(spec, Hooks):
                yield from self._hooks(node, spec, path)
            else:
                for index, item in enumerate(node.items):
                    yield from self.of(item, spec[0], (*path, index))
        elif (wrong := _wrong_with_scalar(node, spec)) is not None:
            yield Finding(wrong, line, path)

    def _map(self, node: Map, spec: Keys, path: Path, line: int) -> Iterator[Finding]:
        if spec is _API_KEY and text_at(node, "type") == "basic_auth":
            spec = _BASIC_AUTH
        for name, entry in node.entries.items():
            known = spec.known.get(name) or spec.others
            if known is not None:
                yield from self.of(entry.value, known, (*path, name), entry.line)
            else:
                yield Finding(self._unknown(name, node, spec, path), entry.line, (*path, name))
        for name in spec.required:
            if name not in node.entries:
                yield finding("required-key", line, path, name=name)

    def _unknown(self, name: str, node: Map, spec: Keys, path: Path) -> Judgement:
        is_in_hook = any(isinstance(p, int) and before == "hooks" for before, p in pairwise(path))
        if is_in_hook and name in _BELONGS:
            return judgement("misplaced-key", name=name, place=_BELONGS[name])
        if name in _TEMPLATE_NAMES and path[-1:] == ("config",) and at(node, "body") is None:
            return judgement("misplaced-key:template", name=name)
        if meant := self._meant_by(name, list(spec.known)):
            return judgement("misspelt-key", meant=meant)
        if spec.is_refusing:
            return judgement("refused-key", known=", ".join(spec.known))
        return judgement("unknown-key")

    def _meant_by(self, name: str, known: list[str]) -> str | None:
        if self._guesses_left == 0 or len(name) > _LONGEST_NAME:
            return None
        self._guesses_left -= 1
        return next(iter(get_close_matches(name, known, 1, 0.75)), None)

    def _hooks(self, node: Items, spec: Hooks, path: Path) -> Iterator[Finding]:
        seen: set[object] = set()
        for index, item in enumerate(node.items):
            place = (*path, index)
            name = text_at(item, "hook")
            if not isinstance(item, Map) or name is None:
                yield finding("no-hook", item.line, place)
                continue
            if name not in spec.allowed:
                yield Finding(_refused_hook(name, spec), item.line, place)
            value = value_of(item)
            if value in seen:
                yield finding("repeated-hook", item.line, place)
            seen.add(value)
            if name in KNOWN_HOOKS:
                yield from self.of(item, _HOOKS.get(name, _PLAIN_HOOK), place)
            if name == "web_hook":
                yield from _of_web_hook(Hook(name, item, place))


def _of_web_hook(hook: Hook) -> Iterator[Finding]:
    if at(hook.node, "config") is None:
        yield finding("no-config", hook.line, hook.path)
    if at(hook.config, "can_interrupt") is not None:
        path = (*hook.path, "config", "can_interrupt")
        yield finding("can-interrupt", hook.line_of("can_interrupt"), path)


def _refused_hook(name: str, spec: Hooks) -> Judgement:
    if name not in KNOWN_HOOKS:
        return judgement("unknown-hook")
    allowed = ", ".join(known for known in spec.allowed if known not in IGNORED_HOOKS)
    places = ", ".join(
        str(Place(flow, method))
        for flow, methods in HOOKS.items()
        for method, names in methods.items()
        if name in names
    )
    return judgement("hook-not-allowed", name=name, allowed=allowed, places=places)


def _wrong_with_scalar(node: Node, spec: Kind | tuple[str, ...]) -> Judgement | None:
    if not isinstance(node, Text):
        return _wrong_type(spec.value if isinstance(spec, Kind) else "a text")
    if node.value.lstrip().startswith(FILLED_IN):
        return None
    wanted = TEXT if spec is DURATION or isinstance(spec, tuple) else spec
    if kind_of(node) is not wanted:
        return _wrong_type(wanted.value, wanted)
    if isinstance(spec, tuple) and node.value not in spec:
        return judgement("wrong-value:choice", choice=", ".join(spec))
    if spec is DURATION and not _DURATION.fullmatch(node.value):
        return judgement("wrong-value:duration")
    return None


def _wrong_type(expected: str, kind: Kind = ANY) -> Judgement:
    remedy = {
        TEXT: "Put the value in quotes.",
        TRUTH: "Write true or false, without quotes; yes, no, on and off are texts.",
        NUMBER: "Write a whole number, without quotes.",
    }.get(kind, "See Kratos' reference of its configuration.")
    return judgement("wrong-type", expected=expected, remedy=remedy)
