"""What is wrong with one hook, and with a list of hooks."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from kratos_sync.application.kratos_config.findings import Finding
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
    Text,
    items_at,
    text_at,
    truth_at,
    value_at,
)
from kratos_sync.application.kratos_config.templates import Templates, judge, judge_ours

SESSION_GOES_LAST: Final = (1, 3, 1)
"""The first release that is known to run `session` last wherever it stands."""
_HTTP: Final = ("clients", "http")
_PRIVATE_DOMAINS: Final = ("localhost", "local", "internal", "svc", "lan", "test")
_JSON: Final = "application/json"
_SENT_BY_KRATOS: Final = (_JSON, "application/x-www-form-urlencoded")
_WILD: Final = re.compile(r"(\*+|\?)")
_MOST_PATTERNS: Final = 200
_LONGEST: Final = 500


def findings_of(
    hook: Hook, flow: str, receiver: Receiver, root: Map, templates: Templates
) -> Iterator[Finding]:
    """What keeps a webhook after a flow, which is meant for this service, from arriving here."""
    return _of_known(hook, _of_ours(hook, flow, receiver, root, templates))


def _of_known(hook: Hook, found: Iterator[Finding]) -> Iterator[Finding]:
    """The findings, with a note in place of those about values that another tool fills in."""
    variables: dict[tuple[str, ...], None] = {}
    for each in found:
        keys = tuple(map(str, each.path[len(hook.path) + 1 :]))
        if each.rule != "key-variable" and (hook.text(*keys) or "").startswith(FILLED_IN):
            variables[keys] = None
        else:
            yield each
    yield from (hook.finding("variable", *keys) for keys in variables)


def _of_ours(
    hook: Hook, flow: str, receiver: Receiver, root: Map, templates: Templates
) -> Iterator[Finding]:
    yield from _of_url(hook, receiver, root)
    if hook.text("method") != "POST":
        yield hook.finding("method", "method")
    if body := hook.text("body"):
        yield from (hook.finding(rule, "body") for rule in judge_ours(body, flow, templates))
    else:
        yield hook.finding("no-body", "body")
    for name, content_type in _content_types(hook):
        if content_type != _JSON:
            is_sent = content_type in _SENT_BY_KRATOS
            yield hook.finding("content-type" if is_sent else "content-type:never", "headers", name)
    if not truth_at(hook.config, "emit_analytics_event", default=True):
        yield hook.finding("no-dedupe-key", "emit_analytics_event")
    yield from _of_auth(hook, receiver)
    if hook.is_ignored and hook.interrupts:
        yield hook.finding("ignore-and-parse", "response")
    elif not hook.is_ignored:
        early = _runs_before_storing(hook, flow)
        yield hook.finding("parse" if early else "synchronous", "response")


def _content_types(hook: Hook) -> Iterator[tuple[str, str]]:
    """The headers that Kratos compares, to the letter, with the two types that it can send."""
    headers = value_at(hook.config, "headers")
    for name in headers.entries if isinstance(headers, Map) else ():
        if name.lower() == "content-type":
            yield name, text_at(headers, name) or ""


def _of_url(hook: Hook, receiver: Receiver, root: Map) -> Iterator[Finding]:
    url = hook.text("url") or ""
    parts = split(url)
    if parts is None:
        yield hook.finding("url", "url")
        return
    if url != receiver.url and not parts.path.endswith(SYNC_PATH):
        yield hook.finding("url-slash", "url")
    is_blocked = _is_blocked(url, root)
    if is_blocked is not False:
        yield hook.finding("private" if is_blocked else "perhaps-private", "url")


def _of_auth(hook: Hook, receiver: Receiver) -> Iterator[Finding]:
    header = receiver.header
    auth, headers = value_at(hook.config, "auth"), value_at(hook.config, "headers")
    if auth is None:
        names = headers.entries if isinstance(headers, Map) else ()
        given = next((name for name in names if name.lower() == header.lower()), None)
        if given is None:
            yield hook.finding("no-auth", "auth", header=header)
        else:
            yield from _of_key(hook, "headers", given)
        return
    if text_at(auth, "type") != "api_key":
        yield hook.finding("auth-type", "auth", "type", header=header)
        return
    place, name = (text_at(auth, "config", part) or "" for part in ("in", "name"))
    if place != "header":
        yield hook.finding("auth-in", "auth", "config", "in", header=header)
    if name.lower() != header.lower():
        yield hook.finding("auth-name", "auth", "config", "name", header=header)
    yield from _of_key(hook, "auth", "config", "value")


def _of_key(hook: Hook, *keys: str) -> Iterator[Finding]:
    key = hook.text(*keys) or ""
    if not key.strip():
        yield hook.finding("no-key", *keys)
    elif key.startswith("$"):
        yield hook.finding("key-variable", *keys)


@lru_cache(maxsize=1024)
def _is_blocked(url: str, root: Map) -> bool | None:
    """Whether Kratos blocks calls to a URL; None if its name server decides."""
    parts = split(url)
    if parts is None or not parts.hostname:
        return False
    if not truth_at(root, *_HTTP, "disallow_private_ip_ranges"):
        return False
    bare = parts._replace(query="", fragment="").geturl()
    patterns = items_at(root, *_HTTP, "private_ip_exception_urls")[:_MOST_PATTERNS]
    texts = (each.value for each in patterns if isinstance(each, Text))
    if any(_matches(text, bare) for text in texts):
        return False
    try:
        return not ip_address(parts.hostname).is_global
    except ValueError:
        labels = parts.hostname.rstrip(".").split(".")
    if len(labels) == 1 or labels[-1] in _PRIVATE_DOMAINS or "svc" in labels:
        return True
    return None


def _matches(pattern: str, url: str) -> bool:
    """Whether a pattern of Kratos' covers a URL: `*` stops at dots and slashes, `**` does not.

    No regular expression: a hostile pattern would make one backtrack without end.
    """
    if max(len(pattern), len(url)) > _LONGEST:
        return False
    ends = {0}
    for piece in _WILD.split(pattern):
        if piece.startswith("**"):
            ends = set(range(min(ends), len(url) + 1))
        elif piece == "*":
            ends = _spread(ends, url)
        elif piece == "?":
            ends = {end + 1 for end in ends if url[end : end + 1] not in ("", ".", "/")}
        else:
            ends = {end + len(piece) for end in ends if url.startswith(piece, end)}
        if not ends:
            return False
    return len(url) in ends


def _spread(ends: set[int], url: str) -> set[int]:
    """Every place from one of these to the next dot or slash."""
    reached: set[int] = set()
    for place in range(min(ends), len(url) + 1):
        if place in ends or (place - 1 in reached and url[place - 1] not in "./"):
            reached.add(place)
    return reached


def findings_of_any(hook: Hook, templates: Templates) -> Iterator[Finding]:
    """Why a webhook that is not for this service, or stands before a flow, is never sent."""
    return _of_known(hook, _of_any(hook, templates)) if hook.config is not None else iter(())


def _of_any(hook: Hook, templates: Templates) -> Iterator[Finding]:
    if hook.text("method") != "TRACE":
        body = hook.text("body")
        for rule in judge(body, templates) if body else ["no-body"]:
            yield hook.finding(rule, "body")
        for name, content_type in _content_types(hook):
            if content_type not in _SENT_BY_KRATOS:
                yield hook.finding("content-type:never", "headers", name)
    url = hook.text("url")
    if url is not None and split(url) is None:
        yield hook.finding("url", "url")
    if hook.interrupts and hook.is_ignored:
        yield hook.finding("ignore-and-parse", "response")


def _runs_before_storing(hook: Hook, flow: str) -> bool:
    return hook.interrupts and flow in STORED_BY_FLOW


def findings_of_list(
    place: Place, hooks: Sequence[Hook], ours: Sequence[Hook], root: Map, templates: Templates
) -> Iterator[Finding]:
    """What is wrong with a list of hooks after a flow, besides its hooks that are for us."""
    yield from (second.finding("twice") for second in ours[1:])
    if place.method is not None and not replaces_the_flows(hooks):
        yield from (hook.finding("network-hook") for hook in hooks if hook.name in IGNORED_HOOKS)
    for hook in hooks:
        if hook.is_web_hook and hook not in ours:
            yield from findings_of_any(hook, templates)
        if place.method is None and _runs_before_storing(hook, place.flow):
            yield hook.finding("parse-in-global")
    version = release(root)
    for hook in hooks[: hooks.index(ours[0])] if ours else ():
        is_stored = not _runs_before_storing(hook, place.flow)
        if hook.is_web_hook and not hook.is_ignored and is_stored:
            yield hook.finding("after-synchronous")
        if hook.name == "session" and (version is None or version < SESSION_GOES_LAST):
            yield hook.finding("after-session:perhaps" if version is None else "after-session")


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
            yield hook.finding("before:ignored" if hook.is_ignored else "before", flow=flow)


def release(root: Map) -> tuple[int, ...] | None:
    """The release of Kratos that the file is written for; None if it does not say."""
    read = re.match(r"v(\d{1,9})\.(\d{1,9})\.(\d{1,9})", text_at(root, "version") or "", re.ASCII)
    return read and tuple(int(number) for number in read.groups())
