"""Recognisable secrets and people, and finding them in whatever form they show."""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, quote_plus

FOR_URLS = bytes.maketrans(b"+/", b"-_")
NEAR = 40
"""So many bytes around a find are shown."""


def forms(text: str) -> dict[str, bytes]:
    """A text as logs, answers, statements and dumps may spell it."""
    raw = text.encode(errors="surrogatepass")
    json_escaped = json.dumps(text)[1:-1]
    spelled = {
        "UTF-8": raw,
        "UTF-16": text.encode("utf-16-le", errors="surrogatepass"),
        "JSON": json_escaped.encode(),
        "JSON in JSON": json.dumps(json_escaped)[1:-1].encode(),
        "a URL": quote(raw).encode(),
        "a URL, all of it": quote(raw, safe="").encode(),
        "a form": quote_plus(raw).encode(),
        "a str's repr": ascii(text)[1:-1].encode(),
        "bytes' repr": repr(raw)[2:-1].encode(),
        "hex": raw.hex().encode(),
    }
    for shift in range(3):
        encoded = _in_base64(raw, shift)
        spelled[f"base64, shifted by {shift}"] = encoded
        spelled[f"base64 for URLs, shifted by {shift}"] = encoded.translate(FOR_URLS)
    return spelled


def _in_base64(raw: bytes, shift: int) -> bytes:
    """The characters that depend on these bytes alone, when so many stand before them."""
    encoded = base64.b64encode(bytes(shift) + raw)
    return encoded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]


class Search:
    """Looks for canaries, by the name of each; upper and lower case are one."""

    def __init__(self, canaries: Mapping[str, str]) -> None:
        self._forms = {
            spelled.lower(): f"{name} as {form}"
            for name, text in canaries.items()
            for form, spelled in forms(text).items()
        }
        self.forms = len(self._forms)
        longest_first = sorted(self._forms, key=len, reverse=True)
        self._any = re.compile(b"|".join(map(re.escape, longest_first)))

    def found_in(self, places: Mapping[str, bytes | str]) -> list[str]:
        """What was found and where, each with what stands around it."""
        return [found for place, said in places.items() for found in self._found(place, said)]

    def _found(self, place: str, said: bytes | str) -> Iterable[str]:
        content = (said.encode(errors="surrogatepass") if isinstance(said, str) else said).lower()
        for found in self._any.finditer(content):
            around = content[max(found.start() - NEAR, 0) : found.end() + NEAR]
            yield f"{self._forms[found[0]]} in {place}: {around!r}"
