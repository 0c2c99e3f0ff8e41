"""How Sphinx builds the site: `make docs`."""

import logging
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from posixpath import normpath, relpath
from typing import Final

from sphinx.application import Sphinx

DOCS: Final = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from events_reference import events_sections  # noqa: E402  # they stand beside this file
from metrics_reference import metrics_tables  # noqa: E402
from settings_reference import settings_table  # noqa: E402
from spans_reference import spans_table  # noqa: E402

logging.getLogger("alembic").setLevel(logging.WARNING)

project = "kratos-identity-sync"
author = "The kratos-identity-sync maintainers"
version = release = installed_version("kratos-identity-sync")

extensions = ["myst_parser", "sphinx_click", "sphinx_copybutton"]
exclude_patterns = ["_build"]
nitpicky = True
smartquotes = False
myst_heading_anchors = 4
myst_enable_extensions = ["attrs_block"]

html_theme = "furo"
html_title = "kratos-identity-sync"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
copybutton_exclude = ".linenos, .gp"

# Files of the repository that are pages of the site under another name.
PAGES: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
# Not in the file itself: readers of the repository would see a block of code.
EVERY_DECISION: Final = """
```{toctree}
:hidden:
:glob:

0*
```
"""
LINK: Final = re.compile(r"(?P<text>(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\])\((?P<target>[^)\s:]+)\)")


def links_of_the_site(text: str, folder: str, page: str) -> str:
    """Rewrite the links of a file in `folder` (below the repository) for the page `page`.

    A link to a file that is no page keeps its text only: the site does not hold the code.
    """

    def rewrite(link: re.Match[str]) -> str:
        path, mark, anchor = link["target"].partition("#")
        if not path:
            return link[0]
        file = normpath(f"{folder}/{path}")
        target = PAGES.get(file, file.removeprefix("docs/"))
        if (DOCS.parent / file).exists() and not (DOCS / target).is_file():
            return link["text"][1:-1]
        return f"{link['text']}({relpath(target, str(Path(page).parent))}{mark}{anchor})"

    return LINK.sub(rewrite, text)


def _read_page(_: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = source[0].replace("<!-- settings -->", settings_table())
    source[0] = source[0].replace("<!-- events -->", events_sections())
    source[0] = source[0].replace("<!-- spans -->", spans_table())
    source[0] = source[0].replace("<!-- metrics -->", metrics_tables())
    if docname == "decisions/README":
        source[0] += EVERY_DECISION
    folder = normpath(f"docs/{Path(docname).parent}")
    source[0] = links_of_the_site(source[0], folder, docname)


def _read_included(_: Sphinx, path: Path, page: str, source: list[str]) -> None:
    source[0] = links_of_the_site(source[0], normpath(f"docs/{path.parent}"), page)


def setup(app: Sphinx) -> None:
    """Let every page and every included file be read by the two functions above."""
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
