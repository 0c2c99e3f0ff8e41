"""What keeps one hook that should tell us of an identity from doing it."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import Final, TypeAlias

from kratos_sync.application.kratos_config.findings import Finding, Judgement, Severity
from kratos_sync.application.kratos_config.flows import STORED_BY_FLOW
from kratos_sync.application.kratos_config.hook import (
    FILLED_IN,
    SYNC_PATH,
    Hook,
    Receiver,
    is_text,
    split,
)
from kratos_sync.application.kratos_config.nodes import (
    Items,
    Map,
    Text,
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
_REMEDY: Final = "Add the URL to clients.http.private_ip_exception_urls."


@lru_cache(maxsize=1024)
def blocked(url: str, root: Map) -> Judgement | None:
    """Say whether calls to a URL are kept back; None if not, or if it is no URL."""
    parts = split(url)
    if parts is None or parts.hostname is None:
        return None
    if not truth_at(root, *_HTTP, "disallow_private_ip_ranges"):
        return None
    bare = parts._replace(query="", fragment="").geturl()
    if len(bare) <= _LONGEST and any(_matches(pattern, bare) for pattern in _exceptions(root)):
        return None
    private = _is_private(parts.hostname)
    if private:
        sentence = "The address is private, and clients.http.disallow_private_ip_ranges is on:"
        return Judgement("private", Severity.ERROR, f"{sentence} it is never called.", _REMEDY)
    if private is None:
        sentence = "With clients.http.disallow_private_ip_ranges it is never called if its name"
        sentence += " stands for a private address."
        return Judgement("perhaps-private", Severity.WARNING, sentence, _REMEDY)
    return None


def _exceptions(root: Map) -> list[str]:
    found = value_at(root, *_HTTP, "private_ip_exception_urls")
    items = found.items if isinstance(found, Items) else ()
    texts = [item.value for item in items[:_MOST_PATTERNS] if isinstance(item, Text)]
    return [text for text in texts if len(text) <= _LONGEST]


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
    """Give every place up to the next dot or slash behind any of these."""
    stop = -1
    for place in range(min(ends), len(url) + 1):
        if place > stop and place in ends:
            stop = _stop(url, place)
        if place <= stop:
            yield place


def _stop(url: str, start: int) -> int:
    """Give where the next dot or slash is, or the end."""
    found = _DOT_OR_SLASH.search(url, start)
    return len(url) if found is None else found.start()


def _is_private(host: str) -> bool | None:
    """Whether a host is private; None for a name that only a name server knows."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        pass
    labels = host.rstrip(".").split(".")
    if len(labels) == 1 or labels[-1] in _PRIVATE_DOMAINS or "svc" in labels:
        return True
    return None


Placed: TypeAlias = tuple[tuple[str, ...], Judgement]
"""A judgement, and the keys under ``config`` that it is of."""

_PRINTED: Final = "Take the one that `kratos-sync hooks` prints."
_REFUSED: Final = "we refuse every call, and none is repeated."


def findings_of(
    hook: Hook, flow: str, receiver: Receiver, root: Map, templates: Templates
) -> Iterator[Finding]:
    """Say what is wrong with a webhook that is for us and stands after a flow."""
    body = text_at(hook.config, "body") or ""
    for judged in (
        _url(hook, receiver, root),
        _body(hook, judge_ours(body, flow, templates)),
        _headers(hook),
        _auth(hook, receiver),
        _answer(hook, flow),
    ):
        yield from _placed(hook, judged)


def findings_of_any(hook: Hook, templates: Templates) -> Iterator[Finding]:
    """Say why a webhook that is not for us, or stands before a flow, is never sent."""
    if hook.config is None:
        return
    if text_at(hook.config, "method") != "TRACE":
        body = text_at(hook.config, "body") or ""
        yield from _placed(hook, _body(hook, judge(body, templates)))
    if hook.url is not None and split(hook.url) is None and not hook.url.startswith(FILLED_IN):
        yield from _placed(hook, [(("url",), _NO_URL)])
    if hook.interrupts and hook.is_ignored:
        yield from _placed(hook, [(("response",), _IGNORED_AND_PARSED)])


def _placed(hook: Hook, judged: Iterable[Placed]) -> Iterator[Finding]:
    for keys, judgement in judged:
        yield Finding(judgement, hook.line_of(*keys), (*hook.path, "config", *keys))


def _url(hook: Hook, receiver: Receiver, root: Map) -> Iterator[Placed]:
    parts = split(hook.url or "")
    if parts is None:
        yield ("url",), _NO_URL
    elif hook.url != receiver.url and not parts.path.endswith(SYNC_PATH):
        sentence = f"With a slash behind {SYNC_PATH} we do not answer: every call is lost."
        remedy = "Remove the slash, or say --url if a proxy sees to it."
        yield ("url",), _error("url-slash", sentence, remedy)
    if (judgement := blocked(hook.url or "", root)) is not None:
        yield ("url",), judgement
    if text_at(hook.config, "method") != "POST":
        sentence = f"The method is not POST: {_REFUSED}"
        yield ("method",), _error("method", sentence, "Write `method: POST`.")


def _body(hook: Hook, judgements: Iterator[Judgement]) -> Iterator[Placed]:
    if text_at(hook.config, "body"):
        for judgement in judgements:
            yield ("body",), judgement
    else:
        sentence = "There is no `body`: Kratos finds no template, and never sends the hook."
        yield ("body",), _error("no-body", sentence, _PRINTED)


def _headers(hook: Hook) -> Iterator[Placed]:
    content_type = text_at(hook.config, "headers", "Content-Type")
    if content_type is not None and not content_type.strip().lower().startswith("application/json"):
        sentence = f"The body does not go as application/json: {_REFUSED}"
        yield ("headers", "Content-Type"), _error("content-type", sentence, "Remove the line.")
    if not truth_at(hook.config, "emit_analytics_event", default=True):
        sentence = (
            "With `emit_analytics_event: false` calls have no Ory-Webhook-Trigger-Id: what Kratos"
            " repeats is recorded twice."
        )
        judgement = Judgement("no-dedupe-key", Severity.WARNING, sentence, "Remove the line.")
        yield ("emit_analytics_event",), judgement


def _auth(hook: Hook, receiver: Receiver) -> Iterator[Placed]:
    remedy = f"Set `auth` with `type: api_key`, `in: header` and `name: {receiver.header}`."
    auth = value_at(hook.config, "auth")
    if auth is None:
        if not _has_header(hook, receiver.header):
            yield ("auth",), _error("no-auth", f"There is no `auth`: {_REFUSED}", remedy)
        return
    if text_at(auth, "type") != "api_key":
        sentence = f"Our key is an `api_key`; with any other `auth` {_REFUSED}"
        yield ("auth", "type"), _error("auth-type", sentence, remedy)
        return
    if text_at(auth, "config", "in") != "header":
        sentence = f"The key does not go in a header: {_REFUSED}"
        yield ("auth", "config", "in"), _error("auth-in", sentence, remedy)
    if (text_at(auth, "config", "name") or "").lower() != receiver.header.lower():
        sentence = f"The key goes in another header than the one we look at: {_REFUSED}"
        yield ("auth", "config", "name"), _error("auth-name", sentence, remedy)
    if not is_text(value_at(auth, "config", "value")):
        remedy = "Set `value` to a key of KRATOS_WEBHOOK_API_KEYS."
        yield ("auth", "config", "value"), _error("no-key", f"There is no key: {_REFUSED}", remedy)
    elif (text_at(auth, "config", "value") or "").startswith("$"):
        sentence = "Kratos does not expand variables in its file: it would send this as the key."
        remedy = "See that something else puts the key there."
        judgement = Judgement("key-variable", Severity.NOTE, sentence, remedy)
        yield ("auth", "config", "value"), judgement


def _answer(hook: Hook, flow: str) -> Iterator[Placed]:
    if hook.interrupts and hook.is_ignored:
        yield ("response",), _IGNORED_AND_PARSED
    elif hook.interrupts and flow in STORED_BY_FLOW:
        sentence = (
            "A hook that parses is called before anything is stored, and not after it: this one"
            " does not tell us what the identity is."
        )
        remedy = "Set `response: {ignore: true}` here, and let a second hook parse."
        yield ("response",), _error("parse", sentence, remedy)
    elif not hook.is_ignored:
        sentence = (
            "People wait for our answer, and are shown our errors, although everything is stored"
            " by then."
        )
        remedy = "Set `response: {ignore: true}`."
        yield ("response",), Judgement("synchronous", Severity.WARNING, sentence, remedy)


def _has_header(hook: Hook, name: str) -> bool:
    headers = value_at(hook.config, "headers")
    names = headers.entries if isinstance(headers, Map) else ()
    return any(given.lower() == name.lower() for given in names)


def _error(rule: str, sentence: str, remedy: str) -> Judgement:
    return Judgement(rule, Severity.ERROR, sentence, remedy)


_NO_URL: Final = _error("url", "The URL is none that can be called.", "Correct it.")
_IGNORED_AND_PARSED: Final = _error(
    "ignore-and-parse",
    "An answer cannot be ignored and parsed: Kratos refuses to call, or to start.",
    "Leave `ignore: true` alone here.",
)
