"""Where a page says that the listing goes on: the `Link` header (RFC 8288)."""

import re
from typing import Final
from urllib.parse import urljoin, urlsplit

from application.ports.kratos import KratosRefused

LISTING: Final = "/admin/identities"
_PARAMETER: Final = r"""\s*;\s*([\w-]+)\s*=\s*(?:"([^"]*)"|([^\s";,]+))"""
_LINK: Final = re.compile(rf"<([^>]*)>((?:{_PARAMETER})*)")
_TOKEN: Final = re.compile(r"[!$-~]{1,4096}")  # what may stand in a query, "#" apart


def next_token(link: str | None, asked: str) -> str | None:
    """Give the query that leads to the next page; None if there is no such link.

    ``asked`` is the URL of this page. Raises KratosRefused for a link that leads elsewhere or
    nowhere new: only the query is ever followed, and only if host and path are where we are. Kratos
    writes the path without what a proxy took off.
    """
    target = _target(link or "")
    if target is None:
        return None
    here, there = urlsplit(asked), urlsplit(urljoin(asked, target))
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        raise KratosRefused("its Link leads to another place")
    if there.path not in {here.path, LISTING}:
        raise KratosRefused("its Link leads to another path")
    if there.query == here.query or not is_token(there.query):
        raise KratosRefused("its Link leads nowhere")
    return there.query


def is_token(query: str) -> bool:
    """Whether this could be one of ours, and nothing that breaks out of a request's first line."""
    return _TOKEN.fullmatch(query) is not None


def _target(link: str) -> str | None:
    for target, parameters, *_ in _LINK.findall(link):
        for name, quoted, bare in re.findall(_PARAMETER, parameters):
            if name.lower() == "rel" and "next" in (quoted or bare).lower().split():
                return str(target)
    return None
