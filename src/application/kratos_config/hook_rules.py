"""Rules for one hook, and for a list of hooks: a table of judgements and when each applies."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, NamedTuple

from kratos_sync.application.kratos_config.findings import (
    Finding,
    Judgement,
    finding,
    judgement,
)
from kratos_sync.application.kratos_config.hooks import (
    FILLED_IN,
    HOOKS_THAT_RUN,
    IGNORED_HOOKS,
    STORED_BY_FLOW,
    SYNC_PATH,
    Hook,
    Place,
    Receiver,
    keys_before,
    read_hooks,
    split,
)
from kratos_sync.application.kratos_config.nodes import (
    Map,
    Node,
    Text,
    items_at,
    text_at,
    truth_at,
    value_at,
)
from kratos_sync.application.kratos_config.templates import Templates, judge, judge_ours

_HTTP: Final = ("clients", "http")
_PRIVATE_DOMAINS: Final = ("localhost", "local", "internal", "svc", "lan", "test")
_WILD: Final = re.compile(r"(\*+|\?)")
_DOT_OR_SLASH: Final = re.compile(r"[./]")
_MOST_PATTERNS: Final = 200
_LONGEST: Final = 500


@lru_cache(maxsize=1024)
def _is_blocked(url: str, root: Map) -> bool | None:
    """Whether Kratos blocks calls to a URL; None if its name server decides."""
    parts = split(url)
    if parts is None or parts.hostname is None:
        return False
    if not truth_at(root, *_HTTP, "disallow_private_ip_ranges"):
        return False
    bare = parts._replace(query="", fragment="").geturl()
    patterns = items_at(root, *_HTTP, "private_ip_exception_urls")[:_MOST_PATTERNS]
    texts = [each.value for each in patterns if isinstance(each, Text)]
    if len(bare) <= _LONGEST and any(
        len(pattern) <= _LONGEST and _matches(pattern, bare) for pattern in texts
    ):
        return False
    try:
        return not ip_address(parts.hostname).is_global
    except ValueError:
        labels = parts.hostname.rstrip(".").split(".")
    if len(labels) == 1 or labels[-1] in _PRIVATE_DOMAINS or "svc" in labels:
        return True
    return None


def _matches(pattern: str, url: str) -> bool:
    """Whether a pattern of Kratos' covers a URL: `*` stops at dots and slashes, `**` does not."""
    ends = {0}
    for piece in _WILD.split(pattern):
        if piece.startswith("**"):
            ends = set(range(min(ends), len(url) + 1))
        elif piece == "*":
            ends = set(_spread(ends, url))
        elif piece == "?":
            ends = {start + 1 for start in ends if start < _stop(url, start)}
        else:
            ends = {start + len(piece) for start in ends if url.startswith(piece, start)}
        if not ends:
            return False
    return len(url) in ends


def _spread(ends: set[int], url: str) -> Iterator[int]:
    """Every place from one of these to the next dot or slash."""
    stop = -1
    for place in range(min(ends), len(url) + 1):
        if place > stop and place in ends:
            stop = _stop(url, place)
        if place <= stop:
            yield place


def _stop(url: str, start: int) -> int:
    """The place of the next dot or slash, or the end."""
    found = _DOT_OR_SLASH.search(url, start)
    return len(url) if found is None else found.start()


class _Call(NamedTuple):
    """A hook that is meant for this service, and what it is judged by."""

    hook: Hook
    flow: str
    receiver: Receiver
    root: Map

    def text(self, *keys: str) -> str:
        return text_at(self.hook.config, *keys) or ""

    @property
    def auth(self) -> Node | None:
        return value_at(self.hook.config, "auth")

    @property
    def auth_is_key(self) -> bool:
        return text_at(self.auth, "type") == "api_key"

    @property
    def has_key_header(self) -> bool:
        headers = value_at(self.hook.config, "headers")
        names = headers.entries if isinstance(headers, Map) else ()
        return any(name.lower() == self.receiver.header.lower() for name in names)

    @property
    def has_slash(self) -> bool:
        parts = split(self.text("url"))
        if parts is None or self.hook.url == self.receiver.url:
            return False
        return not parts.path.endswith(SYNC_PATH)

    @property
    def is_ignored(self) -> bool:
        return self.hook.is_ignored

    @property
    def is_early(self) -> bool:
        return _runs_before_storing(self.hook, self.flow)


class _Rule(NamedTuple):
    name: str
    keys: tuple[str, ...]
    """Of the setting that it is about, under `config`."""
    applies: Callable[[_Call], bool]


_IN: Final = ("auth", "config", "in")
_NAME: Final = ("auth", "config", "name")
_KEY: Final = ("auth", "config", "value")
_BEFORE_THE_TEMPLATE: Final = (
    _Rule("url", ("url",), lambda call: split(call.text("url")) is None),
    _Rule("url-slash", ("url",), lambda call: call.has_slash),
    _Rule("private", ("url",), lambda call: _is_blocked(call.text("url"), call.root) is True),
    _Rule(
        "perhaps-private", ("url",), lambda call: _is_blocked(call.text("url"), call.root) is None
    ),
    _Rule("method", ("method",), lambda call: call.text("method") != "POST"),
    _Rule("no-body", ("body",), lambda call: not call.text("body")),
)
_AFTER_THE_TEMPLATE: Final = (
    _Rule(
        "content-type",
        ("headers", "Content-Type"),
        lambda call: (
            (given := text_at(call.hook.config, "headers", "Content-Type")) is not None
            and not given.strip().lower().startswith("application/json")
        ),
    ),
    _Rule(
        "no-dedupe-key",
        ("emit_analytics_event",),
        lambda call: not truth_at(call.hook.config, "emit_analytics_event", default=True),
    ),
    _Rule("no-auth", ("auth",), lambda call: call.auth is None and not call.has_key_header),
    _Rule(
        "auth-type", ("auth", "type"), lambda call: call.auth is not None and not call.auth_is_key
    ),
    _Rule("auth-in", _IN, lambda call: call.auth_is_key and call.text(*_IN) != "header"),
    _Rule(
        "auth-name",
        _NAME,
        lambda call: call.auth_is_key and call.text(*_NAME).lower() != call.receiver.header.lower(),
    ),
    _Rule("no-key", _KEY, lambda call: call.auth_is_key and not call.text(*_KEY).strip()),
    _Rule("key-variable", _KEY, lambda call: call.auth_is_key and call.text(*_KEY)[:1] == "$"),
    _Rule("ignore-and-parse", ("response",), lambda call: call.is_ignored and call.hook.interrupts),
    _Rule("parse", ("response",), lambda call: not call.is_ignored and call.is_early),
    _Rule("synchronous", ("response",), lambda call: not call.is_ignored and not call.is_early),
)


def findings_of(
    hook: Hook, flow: str, receiver: Receiver, root: Map, templates: Templates
) -> Iterator[Finding]:
    """What keeps a webhook after a flow, which is meant for this service, from arriving here."""
    call = _Call(hook, flow, receiver, root)
    yield from _applied(_BEFORE_THE_TEMPLATE, call)
    if body := call.text("body"):
        yield from _placed(hook, ("body",), judge_ours(body, flow, templates))
    yield from _applied(_AFTER_THE_TEMPLATE, call)


def findings_of_any(hook: Hook, templates: Templates) -> Iterator[Finding]:
    """Why a webhook that is not for this service, or stands before a flow, is never sent."""
    if hook.config is None:
        return
    if text_at(hook.config, "method") != "TRACE":
        body = text_at(hook.config, "body")
        judgements = judge(body, templates) if body else [judgement("no-body")]
        yield from _placed(hook, ("body",), judgements)
    if hook.url is not None and split(hook.url) is None and not hook.url.startswith(FILLED_IN):
        yield from _placed(hook, ("url",), [judgement("url")])
    if hook.interrupts and hook.is_ignored:
        yield from _placed(hook, ("response",), [judgement("ignore-and-parse")])


def _applied(rules: Sequence[_Rule], call: _Call) -> Iterator[Finding]:
    for name, keys, applies in rules:
        if applies(call):
            found = judgement(name, header=call.receiver.header)
            yield from _placed(call.hook, keys, [found])


def _placed(
    hook: Hook, keys: tuple[str, ...], judgements: Iterable[Judgement]
) -> Iterator[Finding]:
    for each in judgements:
        yield Finding(each, hook.line_of(*keys), (*hook.path, "config", *keys))


def _runs_before_storing(hook: Hook, flow: str) -> bool:
    return hook.interrupts and flow in STORED_BY_FLOW


SESSION_GOES_LAST: Final = (1, 3, 1)
"""The first release that is known to run `session` last wherever it stands."""


def findings_of_list(
    place: Place, hooks: Sequence[Hook], ours: Sequence[Hook], root: Map, templates: Templates
) -> Iterator[Finding]:
    """What is wrong with a list of hooks after a flow, besides its hooks that are for us."""
    yield from (_of("twice", second) for second in ours[1:])
    if place.method is not None and not replaces_the_flows(hooks):
        yield from (_of("network-hook", hook) for hook in hooks if hook.name in IGNORED_HOOKS)
    for hook in hooks:
        if hook.is_web_hook and hook not in ours:
            yield from findings_of_any(hook, templates)
        if place.method is None and _runs_before_storing(hook, place.flow):
            yield _of("parse-in-global", hook)
    for hook in hooks[: hooks.index(ours[0])] if ours else ():
        is_stored = not _runs_before_storing(hook, place.flow)
        if hook.is_web_hook and not hook.is_ignored and is_stored:
            yield _of("after-synchronous", hook)
        version = release(root)
        if hook.name == "session" and (version is None or version < SESSION_GOES_LAST):
            yield _of("after-session:perhaps" if version is None else "after-session", hook)


def replaces_the_flows(hooks: Sequence[Hook]) -> bool:
    """Whether a method's list replaces its flow's: Kratos runs one of its hooks at least."""
    return any(hook.name in HOOKS_THAT_RUN for hook in hooks)


def findings_before(
    root: Map, flow: str, receiver: Receiver, templates: Templates
) -> Iterator[Finding]:
    """What is wrong with webhooks that stand before a flow."""
    for hook in read_hooks(root, keys_before(flow)):
        if hook.is_web_hook:
            yield from findings_of_any(hook, templates)
        if hook.is_for(receiver):
            yield _of("before:ignored" if hook.is_ignored else "before", hook, flow=flow)


def release(root: Map) -> tuple[int, ...] | None:
    """The release of Kratos that the file is written for; None if it does not say."""
    read = re.match(r"v(\d{1,9})\.(\d{1,9})\.(\d{1,9})", text_at(root, "version") or "", re.ASCII)
    return read and tuple(int(number) for number in read.groups())


def _of(rule: str, hook: Hook, **values: str) -> Finding:
    return finding(rule, hook.line, hook.path, **values)
