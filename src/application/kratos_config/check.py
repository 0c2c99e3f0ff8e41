"""Checks a Kratos configuration: which places call this service, and what is wrong, by line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kratos_sync.application.kratos_config.findings import (
    Coverage,
    Finding,
    Report,
    Severity,
    finding,
)
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
    METHODS,
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
    at,
    items_at,
    text_at,
)
from kratos_sync.application.kratos_config.settings import findings_of_settings
from kratos_sync.application.kratos_config.templates import Templates

DEDUPE_KEY_SINCE: Final = (25, 4, 0)
"""The release of Kratos that began to send Ory-Webhook-Trigger-Id."""

_SECRET_HEADERS: Final = ("authorization", "cookie", "x-session-token", "proxy-authorization")
_ALLOWLIST: Final = ("clients", "web_hook", "header_allowlist")


def check(file: ConfigFile, receiver: Receiver, templates: Templates) -> Report:
    """Say which flows and methods call this service, and what is wrong with the configuration."""
    root = file.root
    findings = [*_of_file(file), *findings_of_settings(root), *_unreachable_hooks(root)]
    coverage: list[Coverage] = []
    hooks: list[Hook] = []
    has_ours = False
    for flow, methods in METHODS.items():
        places = [Place(flow, method) for method in (None, *methods)]
        lists = [_read_list(root, place, receiver, templates) for place in places]
        covered = _coverage(root, lists)
        coverage += [each for each, _ in covered]
        findings += _uncovered(covered, lists[0])
        findings += findings_before(root, flow, receiver, templates)
        for each in lists:
            findings += findings_of_list(each.place, each.hooks, each.ours, root, templates)
            for found in each.findings:
                findings += found
            hooks += each.hooks
            has_ours = has_ours or bool(each.ours)
        findings += _without_common(lists)
    others = [hook for hook in hooks if hook.is_web_hook]
    if others and not has_ours:
        findings.append(finding("nobody-for-us", others[0].line_of("url"), others[0].path))
    return Report(sorted(findings, key=lambda found: found.line), coverage)


@dataclass(frozen=True, slots=True, eq=False)
class _HookList:
    """The hooks at a place, those for this service, and what is wrong with each of these."""

    place: Place
    line: int
    hooks: Sequence[Hook]
    ours: Sequence[Hook]
    findings: Sequence[Sequence[Finding]]

    @property
    def works(self) -> bool:
        """Whether one of its hooks calls this service."""
        return any(
            all(one.severity is not Severity.ERROR for one in found) for found in self.findings
        )


def _read_list(root: Map, place: Place, receiver: Receiver, templates: Templates) -> _HookList:
    """The list at a place; one that is missing is empty, and has the line of what is around it."""
    hooks = tuple(read_hooks(root, place.keys))
    ours = tuple(hook for hook in hooks if hook.is_for(receiver))
    found = [tuple(findings_of(hook, place.flow, receiver, root, templates)) for hook in ours]
    around = (at(root, *place.keys[:depth]) for depth in range(len(place.keys), 0, -1))
    line = next((entry.line for entry in around if entry is not None), root.line)
    return _HookList(place, line, hooks, ours, found)


def _coverage(root: Map, lists: Sequence[_HookList]) -> list[tuple[Coverage, _HookList]]:
    """The coverage of each place of a flow, and the list that Kratos runs there."""
    common, *methods = lists
    used = [own if replaces_the_flows(own.hooks) else common for own in methods] or [common]
    places = [own.place for own in methods or [common]]
    return [
        (Coverage(place, is_on(root, place), each.works, each.place.keys), each)
        for place, each in zip(places, used, strict=True)
    ]


def _uncovered(
    coverage: Sequence[tuple[Coverage, _HookList]], common: _HookList
) -> Iterator[Finding]:
    """One finding for each list that does not call this service; places that are off are apart."""
    sharing: dict[tuple[_HookList, bool], list[str]] = {}
    for covered, used in coverage:
        if not covered.is_covered:
            name = covered.place.method or covered.place.flow
            sharing.setdefault((used, covered.is_on), []).append(name)
    for (used, on), names in sharing.items():
        subject, why = _not_covered(used, common, names)
        rule = "not-heard" if on else "not-heard-if-on"
        yield finding(rule, used.line, used.place.keys, subject=subject, why=why)


def _not_covered(used: _HookList, common: _HookList, names: Sequence[str]) -> tuple[str, str]:
    flow = used.place.flow
    *others, last = names
    subject = f"{', '.join(others)} and {last} are" if others else f"{last} is"
    if METHODS[flow]:
        subject = f"{flow}: {subject}"
    if used.ours:
        why = "the hook for us that stands there does not work."
    elif used.place.method is not None and common.ours:
        why = "its own hooks replace those directly under `after`, and none of them is for us."
    elif used.place.method is None and METHODS[flow]:
        why = "no hook directly under `after` is for us."
    else:
        why = "there is no hook for us."
    return subject, why


def _without_common(lists: Sequence[_HookList]) -> Iterator[Finding]:
    common, *methods = lists
    if methods and not common.works and all(own.works for own in methods):
        flow = common.place.flow
        yield finding("no-common-hook", common.line, common.place.keys, flow=flow)


def _of_file(file: ConfigFile) -> Iterator[Finding]:
    """What is wrong with the file as such, its release and its clients."""
    for key, line in file.repeated:
        yield finding("repeated-key", line, (key,))
    if file.further_document is not None:
        yield finding("further-document", file.further_document, ())
    version, written_for = at(file.root, "version"), release(file.root)
    if version is not None and written_for is not None and written_for < DEDUPE_KEY_SINCE:
        yield finding("old-release", version.line, ("version",))
    for item in items_at(file.root, *_ALLOWLIST):
        if isinstance(item, Text) and item.value.lower() in _SECRET_HEADERS:
            yield finding("header-allowlist", item.line, _ALLOWLIST)


def _unreachable_hooks(root: Map) -> Iterator[Finding]:
    """Every webhook in the file that is in no list which Kratos runs."""
    lists = [keys_before(flow) for flow in METHODS]
    lists += [Place(flow, m).keys for flow in METHODS for m in (None, *METHODS[flow])]
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
    place = path[len(FLOWS_PATH) :]
    if path[: len(FLOWS_PATH)] != FLOWS_PATH or not place or place[0] not in METHODS:
        flows = ", ".join(METHODS)
        return f"Hooks belong into selfservice.flows.FLOW.after; the flows are {flows}."
    flow = str(place[0])
    named = [part for part in place[1:] if part in ALL_METHODS or part == "link"]
    if named and named[0] not in METHODS[flow]:
        return f"{flow} runs no hooks for {named[0]}: put it directly under `after`, into `hooks`."
    return f"Hooks of {flow} belong into a list `hooks` directly under `after`" + (
        ", or under a method there." if METHODS[flow] else "."
    )
