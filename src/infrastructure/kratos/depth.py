"""JSON that is nested deeper than a parser follows: what is too deep is cut off."""

import re
from collections.abc import Iterator
from typing import Final

from application.json_body import MAX_DEPTH

DEEPEST: Final = MAX_DEPTH + 8
"""Deep enough for whoever reads it to see that it cannot be kept; the page has a level itself."""
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def pruned(body: bytes) -> bytes:
    """Give the JSON with null in place of every object and array at a level below the deepest."""
    return b"".join(_kept(body))


def _kept(body: bytes) -> Iterator[bytes]:
    depth = start = 0
    for token in _TOKEN.finditer(body):
        if token[0] in b"[{":
            depth += 1
            if depth == DEEPEST + 1:
                yield body[start : token.start()] + b"null"
        elif token[0] in b"]}":
            if depth == DEEPEST + 1:
                start = token.end()
            depth -= 1
    if depth <= DEEPEST:
        yield body[start:]
