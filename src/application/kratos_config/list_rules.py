"""What a list of hooks does to those of its hooks that should tell us."""

import re
from collections.abc import Iterator
from typing import Final

from kratos_sync.application.kratos_config.coverage import HookList
from kratos_sync.application.kratos_config.findings import Finding, Judgement, Severity
from kratos_sync.application.kratos_config.flows import FLOWS_PATH, IGNORED_HOOKS, STORED_BY_FLOW
from kratos_sync.application.kratos_config.hook import Hook, Receiver, read_hooks
from kratos_sync.application.kratos_config.hook_rules import findings_of_any
from kratos_sync.application.kratos_config.nodes import (
    ConfigFile,
    Items,
    Map,
    Text,
    at,
    text_at,
    value_at,
)
from kratos_sync.application.kratos_config.templates import Templates

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
SESSION_GOES_LAST: Final = (1, 3, 1)
"""The first release of which we know that it runs `session` last wherever it stands."""


def findings_of_list(used: HookList, root: Map, templates: Templates) -> Iterator[Finding]:
    """Say what is wrong with a list of hooks after a flow, besides its single hooks."""
    for second in used.ours[1:]:
        yield _finding(
            "twice",
            WARNING,
            second,
            "We are called twice here: each call has a dedupe key of its own.",
            "Leave one of them.",
        )
    if used.place.method is not None and not used.runs:
        for hook in used.hooks:
            if hook.name in IGNORED_HOOKS:
                yield _finding(
                    "network-hook",
                    NOTE,
                    hook,
                    "Only the Ory Network runs this hook; there it replaces those directly under"
                    " `after`.",
                    "On the Ory Network, put the web_hook here too.",
                )
    for hook in used.hooks:
        if hook.is_web_hook and hook not in used.ours:
            yield from findings_of_any(hook, templates)
        if used.place.method is None and used.place.flow in STORED_BY_FLOW and hook.interrupts:
            yield _finding(
                "parse-in-global",
                ERROR,
                hook,
                "A hook that parses is never called from the list directly under `after`.",
                "Put it into the list of every method.",
            )
    if used.ours:
        yield from _before(used, used.ours[0], root)


def findings_before(
    root: Map, flow: str, receiver: Receiver, templates: Templates
) -> Iterator[Finding]:
    """Say what is wrong with webhooks that stand before a flow."""
    keys = (*FLOWS_PATH, flow, "before", "hooks")
    for hook in read_hooks(value_at(root, *keys), keys):
        if hook.is_web_hook:
            yield from findings_of_any(hook, templates)
        if hook.is_for(receiver):
            breaks = "and, as people wait for our answer, nobody gets any further"
            useless = "which we refuse"
            yield _finding(
                "before",
                WARNING if hook.is_ignored else ERROR,
                hook,
                f"Before {flow} there is no identity: we are sent null,"
                f" {useless if hook.is_ignored else breaks}.",
                "Move it under `after`.",
            )


def _before(used: HookList, ours: Hook, root: Map) -> Iterator[Finding]:
    earlier = used.hooks[: used.hooks.index(ours)]
    for hook in earlier:
        if hook.is_web_hook and not hook.is_ignored and not _runs_earlier(hook, used.place.flow):
            yield _finding(
                "after-synchronous",
                WARNING,
                hook,
                "When this webhook fails, those behind it are not called: we do not hear of what is"
                " stored by then.",
                "Put ours first.",
            )
        if hook.name == "session":
            yield from _after_session(hook, root)


def _after_session(hook: Hook, root: Map) -> Iterator[Finding]:
    version = release(root)
    if version is not None and version >= SESSION_GOES_LAST:
        return
    yield _finding(
        "after-session",
        NOTE if version is None else ERROR,
        hook,
        "Kratos before v1.3.1 may stop at `session` when an API client registers, and calls nothing"
        " behind it.",
        "Put `session` last.",
    )


def _runs_earlier(hook: Hook, flow: str) -> bool:
    return hook.interrupts and flow in STORED_BY_FLOW


def release(root: Map) -> tuple[int, ...] | None:
    """Give the release of Kratos that the file is written for, or None if it does not say."""
    read = re.match(r"v(\d{1,9})\.(\d{1,9})\.(\d{1,9})", text_at(root, "version") or "", re.ASCII)
    return read and tuple(int(number) for number in read.groups())


def _finding(rule: str, severity: Severity, hook: Hook, sentence: str, remedy: str) -> Finding:
    return Finding(Judgement(rule, severity, sentence, remedy), hook.line, hook.path)


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
