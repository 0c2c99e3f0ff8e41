"""The page of a run: prose, and between markers what the run says."""

import re
from collections.abc import Mapping

MARKED = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


class UnknownPlace(Exception):
    """The page and the report do not name the same places."""


def filled(page: str, texts: Mapping[str, str]) -> str:
    """The page with each text in its place, whatever stood there. Raises UnknownPlace."""
    places = [found[2] for found in MARKED.finditer(page)]
    if sorted(places) != sorted(texts):
        raise UnknownPlace(f"the page has {sorted(places)}, the report {sorted(texts)}")
    return MARKED.sub(lambda found: f"{found[1]}\n{texts[found[2]]}\n\n{found[3]}", page)
