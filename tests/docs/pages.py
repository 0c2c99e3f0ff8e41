"""The pages of the documentation, and what stands in them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md")], key=lambda page: str(page.relative_to(ROOT))
)
NAMES: Final = [str(page.relative_to(ROOT)) for page in PAGES]
_BLOCK: Final = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_CODE: Final = re.compile(r"`[^`\n]+`")
_LINK: Final = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,4} (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, and the line where it begins."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str) -> Iterator[Block]:
    """Every fenced block of that language, in all pages."""
    for page in PAGES:
        text = page.read_text()
        for found in _BLOCK.finditer(text):
            if found[2] == language:
                line = text.count("\n", 0, found.start()) + 2
                yield Block(str(page.relative_to(ROOT)), line, language, found[3])


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return _BLOCK.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Where the page's relative links lead."""
    text = prose(page)
    return [link for link in _LINK.findall(text) if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them."""
    return {_slug(heading) for heading in _HEADING.findall(prose(page))}


def _slug(heading: str) -> str:
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", lambda found: found[1] or "", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
