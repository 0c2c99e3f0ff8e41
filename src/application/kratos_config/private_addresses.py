"""Whether Kratos' protection against requests to private addresses keeps it from calling us."""

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from application.kratos_config.findings import Judgement, Severity
from application.kratos_config.hook import split
from application.kratos_config.nodes import Items, Map, Text, truth_at, value_at

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
