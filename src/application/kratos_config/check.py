"""Checks a Kratos configuration: which places call this service, and what is wrong, by line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from kratos_sync.application.kratos_config.findings import Finding, Severity, finding
from kratos_sync.application.kratos_config.hook_rules import (
    findings_before,
    findings_of,
    findings_of_list,
    release,
    replaces_the_flows,
)
from kratos_sync.application.kratos_config.hooks import (
    ALL_METHODS,
    FLOWS_PATH,
    HOOKS,
    METHODS,
    PLACES,
    Hook,
    Place,
    Receiver,
    is_on,
    keys_before,
    read_hooks,
)
from kratos_sync.application.kratos_config.nodes import (
    ConfigFile,
    Items,
    Map,
    Node,
    Path,
    Text,
    items_at,
    line_at,
    text_at,
)
from kratos_sync.application.kratos_config.settings import findings_of_settings
from kratos_sync.application.kratos_config.templates import Templates

DEDUPE_KEY_SINCE: Final = (25, 4, 0)
"""The release of Kratos that began to send Ory-Webhook-Trigger-Id."""

_SECRET_HEADERS: Final = ("authorization", "cookie", "x-session-token", "proxy-authorization")
_ALLOWLIST: Final = ("clients", "web_hook", "header_allowlist")


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether this service is called for what happens at a place, and by which list of hooks."""

    place: Place
    is_on: bool
    is_covered: bool
    by: Path
    """The list that Kratos runs there: the method's own, or the flow's."""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings, by line, and the coverage of every place."""

    findings: Sequence[Finding]
    coverage: Sequence[Coverage]

    @property
    def passed(self) -> bool:
        """Whether there is no error: everything that is on is covered, and every hook runs."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)


@dataclass(frozen=True, slots=True, eq=False)
class _HookList:
    """The hooks at a place, those for this service, and what is wrong with these."""

    place: Place
    line: int
    hooks: Sequence[Hook]
    ours: Sequence[Hook]
    findings: Sequence[Finding]
    works: bool
    """Whether one of its hooks calls this service."""


def check(file: ConfigFile, receiver: Receiver, templates: Templates) -> Report:
    """Say which flows and methods call this service, and what is wrong with the configuration."""
    root = file.root
    findings = [*_of_file(file), *findings_of_settings(root), *_unreachable_hooks(root)]
    coverage: list[Coverage] = []
    web_hooks: list[Hook] = []
    has_ours = False
    for flow in HOOKS:
        common, *own = lists = [
            _read_list(root, Place(flow, method), receiver, templates) for method in HOOKS[flow]
        ]
        used = {each.place: each if replaces_the_flows(each.hooks) else common for each in own}
        used = used or {common.place: common}
        covered = [
            Coverage(place, is_on(root, place), each.works, each.place.keys)
            for place, each in used.items()
        ]
        coverage += covered
        findings += _uncovered(covered, used, common)
        findings += findings_before(root, flow, receiver, templates)
        for each in lists:
            findings += findings_of_list(each.place, each.hooks, each.ours, root, templates)
            findings += each.findings
            web_hooks += [hook for hook in each.hooks if hook.is_web_hook]
            has_ours = has_ours or bool(each.ours)
        if own and not common.works and all(each.works for each in own):
            findings.append(finding("no-common-hook", common.line, common.place.keys, flow=flow))
    if web_hooks and not has_ours:
        first = web_hooks[0]
        line = line_at(first.node, "config", "url")
        findings.append(finding("nobody-for-us", line, first.path))
    return Report(sorted(findings, key=lambda found: found.line), coverage)


def _read_list(root: Map, place: Place, receiver: Receiver, templates: Templates) -> _HookList:
    """The list at a place; one that is missing is empty, and has the line of what is around it."""
    hooks = tuple(read_hooks(root, place.keys))
    ours = tuple(hook for hook in hooks if hook.is_for(receiver))
    found = [list(findings_of(hook, place.flow, receiver, root, templates)) for hook in ours]
    works = any(all(each.severity is not Severity.ERROR for each in of_one) for of_one in found)
    return _HookList(place, line_at(root, *place.keys), hooks, ours, [*chain(*found)], works)


def _uncovered(
    coverage: Sequence[Coverage], used: dict[Place, _HookList], common: _HookList
) -> Iterator[Finding]:
    """One finding for each list that does not call this service; places that are off are apart."""
    sharing: dict[tuple[_HookList, bool], list[str]] = {}
    for each in coverage:
        if not each.is_covered:
            name = each.place.method or each.place.flow
            sharing.setdefault((used[each.place], each.is_on), []).append(name)
    for (hooks, on), names in sharing.items():
        subject, why = _not_covered(hooks, common, names)
        rule = "not-heard" if on else "not-heard-if-on"
        yield finding(rule, hooks.line, hooks.place.keys, subject=subject, why=why)


def _not_covered(used: _HookList, common: _HookList, names: Sequence[str]) -> tuple[str, str]:
    flow, method = used.place.flow, used.place.method
    *others, last = names
    subject = f"{', '.join(others)} and {last} are" if others else f"{last} is"
    if METHODS[flow]:
        subject = f"{flow}: {subject}"
    if used.ours:
        why = "the hook for this service does not work."
    elif method is not None and common.ours:
        why = "its own hooks replace those directly under `after`, and none calls this service."
    elif method is None and METHODS[flow]:
        why = "no hook directly under `after` calls this service."
    else:
        why = "no hook calls this service."
    return subject, why


def _of_file(file: ConfigFile) -> Iterator[Finding]:
    """What is wrong with the file as such, its release and its clients."""
    for key, line in file.repeated:
        yield finding("repeated-key", line, (key,))
    if file.further_document is not None:
        yield finding("further-document", file.further_document, ())
    written_for = release(file.root)
    if written_for is not None and written_for < DEDUPE_KEY_SINCE:
        yield finding("old-release", line_at(file.root, "version"), ("version",))
    for item in items_at(file.root, *_ALLOWLIST):
        if isinstance(item, Text) and item.value.lower() in _SECRET_HEADERS:
            yield finding("header-allowlist", item.line, _ALLOWLIST)


def _unreachable_hooks(root: Map) -> Iterator[Finding]:
    """Every webhook in the file that is in no list which Kratos runs."""
    lists = [*map(keys_before, HOOKS), *(place.keys for place in PLACES)]
    seen = {id(item) for keys in lists for item in items_at(root, *keys)}
    waiting: list[tuple[Node, Path]] = [(root, ())]
    while waiting:
        node, path = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Items):
            waiting += [(item, (*path, index)) for index, item in enumerate(node.items)]
        elif isinstance(node, Map):
            if text_at(node, "hook") == "web_hook":
                yield finding("stray", node.line, path, remedy=_where_hooks_run(path))
            waiting += [(entry.value, (*path, name)) for name, entry in node.entries.items()]


def _where_hooks_run(path: Path) -> str:
    flow = str(path[2]) if path[:2] == FLOWS_PATH and len(path) > len(FLOWS_PATH) else ""
    if flow not in METHODS:
        flows = ", ".join(METHODS)
        return f"Hooks belong into selfservice.flows.FLOW.after; the flows are {flows}."
    named = [part for part in path[3:] if part in ALL_METHODS or part == "link"]
    if named and named[0] not in METHODS[flow]:
        return f"{flow} runs no hooks for {named[0]}: put it directly under `after`, into `hooks`."
    or_method = ", or under a method there" if METHODS[flow] else ""
    return f"Hooks of {flow} belong into a list `hooks` directly under `after`{or_method}."
