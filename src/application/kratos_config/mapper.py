"""The Jsonnet template that makes a webhook's body: ours, and what can be told of another."""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from typing import Final

from application.kratos_config.findings import Judgement, Severity

MAPPER: Final = """\
function(ctx) {
  identity: if std.objectHas(ctx, 'identity') then ctx.identity else null,
}
"""
"""The identity and nothing else; it renders for every call, with null where there is none."""
SCHEMES: Final = ("base64", "file", "http", "https")

_COMMENTS: Final = re.compile(r"//[^\n]*|#[^\n]*|/\*.*?\*/", re.DOTALL)
_IDENTITY: Final = re.compile(r"""['"]?\bidentity\b['"]?\s*:""")
_EVERYTHING: Final = re.compile(r"[:)+]\s*ctx(\.flow|\.session)?\s*([,};]|$)|\brequest_cookies\b")
_HEADERS: Final = re.compile(r"\brequest_headers\b")


_OURS: Final = "Take the one that `kratos-sync hooks` prints."


def inline(template: str = MAPPER) -> str:
    """Give a template as a URL that Kratos needs no file for."""
    return f"base64://{b64encode(template.encode()).decode()}"


def judge(url: str) -> Iterator[Judgement]:
    """Say what is wrong with a webhook's ``body``; a template in a file is not looked at."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        yield Judgement(
            "body-without-scheme",
            Severity.WARNING,
            "The body is a path without a scheme, which Kratos has deprecated.",
            "Write file:// before it.",
        )
    elif scheme in ("http", "https"):
        yield Judgement(
            "body-from-web",
            Severity.WARNING,
            "The body's template is fetched over HTTP and kept for 60 minutes: a change is late,"
            " and while its server is away the hook is not sent.",
            "Let it be a file:// or base64://.",
        )
    elif scheme == "base64":
        yield from _judge_inline(rest)


def _judge_inline(encoded: str) -> Iterator[Judgement]:
    try:
        template = b64decode(re.sub(r"[\r\n]", "", encoded), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        yield Judgement(
            "body-not-base64",
            Severity.ERROR,
            "The body is no base64 of a text: the hook is never sent.",
            _OURS,
        )
        return
    code = _COMMENTS.sub("", template)
    if "".join(code.split()) == "".join(MAPPER.split()):
        return
    if not _IDENTITY.search(code) and not _EVERYTHING.search(code):
        yield Judgement(
            "body-without-identity",
            Severity.ERROR,
            "The body has no field `identity`: we refuse every call, and none is repeated.",
            _OURS,
        )
        return
    if _EVERYTHING.search(code):
        yield Judgement(
            "body-with-secrets",
            Severity.WARNING,
            "The body seems to carry more than the identity: ctx as a whole has the session's"
            " cookie, and a flow its CSRF token.",
            _OURS,
        )
    if _HEADERS.search(code):
        yield Judgement(
            "body-with-headers",
            Severity.WARNING,
            "The body reads request headers: without such a header, or if"
            " clients.web_hook.header_allowlist leaves it out, the template fails and the hook is"
            " not sent.",
            _OURS,
        )
    yield Judgement(
        "body-not-judged",
        Severity.NOTE,
        "The body is a template of your own, which was not run.",
        "See that it renders for every flow: where it fails, nothing is sent.",
    )
