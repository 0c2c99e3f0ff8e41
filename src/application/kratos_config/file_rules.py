"""What is wrong with a configuration besides its hooks."""

from collections.abc import Iterator
from typing import Final

from application.kratos_config.findings import Finding, Judgement, Severity
from application.kratos_config.list_rules import release
from application.kratos_config.nodes import ConfigFile, Items, Map, Text, at, value_at

DEDUPE_KEY_SINCE: Final = (25, 4, 0)
"""The release of Kratos that began to send Ory-Webhook-Trigger-Id."""

_SECRET_HEADERS: Final = ("authorization", "cookie", "x-session-token", "proxy-authorization")
_ALLOWLIST: Final = ("clients", "web_hook", "header_allowlist")
_SECOND: Final = Judgement(
    "further-document",
    Severity.WARNING,
    "Kratos reads the first document only; this is another one.",
    "Put all into one.",
)
_OLD: Final = Judgement(
    "old-release",
    Severity.WARNING,
    "Kratos before v25.4.0 sends no Ory-Webhook-Trigger-Id: what it repeats is recorded twice.",
    "Upgrade Kratos.",
)
_ALLOWED: Final = Judgement(
    "header-allowlist",
    Severity.WARNING,
    "This hands a header with people's secrets to the templates of every webhook.",
    "Take it off the list: we need no header of the request.",
)


def findings_of_file(file: ConfigFile) -> Iterator[Finding]:
    """Say what is wrong with the file as such, its release and its clients."""
    for repeated in file.repeated:
        sentence = "This key is there twice in the same map: Kratos refuses the file."
        remedy = "Put what both have under one."
        judgement = Judgement("repeated-key", Severity.ERROR, sentence, remedy)
        yield Finding(judgement, repeated.line, (repeated.key,))
    if file.further_document is not None:
        yield Finding(_SECOND, file.further_document, ())
    version, written_for = at(file.root, "version"), release(file.root)
    if version is not None and written_for is not None and written_for < DEDUPE_KEY_SINCE:
        yield Finding(_OLD, version.line, ("version",))
    yield from _header_allowlist(file.root)


def _header_allowlist(root: Map) -> Iterator[Finding]:
    allowed = value_at(root, *_ALLOWLIST)
    for item in allowed.items if isinstance(allowed, Items) else ():
        if isinstance(item, Text) and item.value.lower() in _SECRET_HEADERS:
            yield Finding(_ALLOWED, item.line, _ALLOWLIST)
