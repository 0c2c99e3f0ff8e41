"""Which list of hooks Kratos runs at each place of a flow, and whether one of it tells us."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kratos_sync.application.kratos_config.findings import (
    Coverage,
    Finding,
    Judgement,
    Severity,
    plural_are,
)
from kratos_sync.application.kratos_config.flows import (
    ALL_METHODS,
    FLOWS_PATH,
    HOOKS_THAT_RUN,
    METHODS,
    Place,
    is_on,
)
from kratos_sync.application.kratos_config.hook import Hook, Receiver, read_hooks
from kratos_sync.application.kratos_config.hook_rules import findings_of
from kratos_sync.application.kratos_config.nodes import (
    Items,
    Map,
    Node,
    Path,
    at,
    text_at,
    value_at,
)
from kratos_sync.application.kratos_config.templates import Templates


@dataclass(frozen=True, slots=True, eq=False)
class HookList:
    """What stands at a place: its hooks, and those for us."""

    place: Place
    line: int
    hooks: Sequence[Hook]
    ours: Sequence[Hook]
    found: Sequence[Sequence[Finding]]
    """What is wrong with each of ours."""

    @property
    def is_telling(self) -> bool:
        """Whether one of ours reaches us."""
        return any(
            all(one.severity is not Severity.ERROR for one in findings) for findings in self.found
        )

    @property
    def runs(self) -> bool:
        """Whether Kratos takes it; a list without a hook that it runs is as good as none."""
        return any(hook.name in HOOKS_THAT_RUN for hook in self.hooks)


def hook_list(root: Map, place: Place, receiver: Receiver, templates: Templates) -> HookList:
    """Read the list at a place; one that is not there is empty, with the line of what is around."""
    hooks = tuple(read_hooks(value_at(root, *place.keys), place.keys))
    ours = tuple(hook for hook in hooks if hook.is_for(receiver))
    found = [tuple(findings_of(hook, place.flow, receiver, root, templates)) for hook in ours]
    return HookList(place, _line(root, place), hooks, ours, found)


def lists_of(root: Map, flow: str, receiver: Receiver, templates: Templates) -> Sequence[HookList]:
    """Read every list after a flow: the one directly under `after` first."""
    places = (Place(flow, method) for method in (None, *METHODS[flow]))
    return [hook_list(root, place, receiver, templates) for place in places]


def coverage_of(root: Map, lists: Sequence[HookList]) -> Iterator[tuple[Coverage, HookList]]:
    """Say of each place whether we hear of it, and which list Kratos runs there."""
    common, *methods = lists
    for own in methods or [common]:
        used = own if own.runs else common
        yield Coverage(own.place, is_on(root, own.place), used.is_telling, used.place.keys), used


def unheard(root: Map, lists: Sequence[HookList]) -> Iterator[Finding]:
    """Give one finding for each list that leaves us deaf; what is off stands apart."""
    sharing: dict[tuple[HookList, bool], list[Coverage]] = {}
    for covered, used in coverage_of(root, lists):
        if not covered.is_heard:
            sharing.setdefault((used, covered.is_on), []).append(covered)
    for (used, on), places in sharing.items():
        yield _finding(used, lists[0], on, [one.place.method or one.place.flow for one in places])


def _finding(used: HookList, common: HookList, on: bool, names: Sequence[str]) -> Finding:
    flow = used.place.flow
    subject = f"{flow}: {plural_are(names)}" if METHODS[flow] else plural_are(names)
    if used.ours:
        why = "the hook for us that stands there does not work."
    elif used.place.method is not None and common.ours:
        why = "its own hooks replace those directly under `after`, and none of them is for us."
    elif used.place.method is None and METHODS[flow]:
        why = "no hook directly under `after` is for us."
    else:
        why = "there is no hook for us."
    if on:
        rule, severity, condition = "not-heard", Severity.ERROR, ""
    else:
        rule, severity, condition = "not-heard-if-on", Severity.NOTE, " once turned on"
    sentence = f"{subject} not heard{condition}: {why}"
    remedy = "`kratos-sync hooks` prints what belongs there."
    judgement = Judgement(rule, severity, sentence, remedy)
    return Finding(judgement, used.line, used.place.keys)


def _line(root: Map, place: Place) -> int:
    for depth in range(len(place.keys), 0, -1):
        found = at(root, *place.keys[:depth])
        if found is not None:
            return found.line
    return root.line


def strays(root: Map) -> Iterator[Finding]:
    """Find every webhook in the file that is in no list which Kratos runs."""
    seen = {id(item) for items in _lists(root) for item in items.items}
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
                sentence = "Kratos does not look for hooks here: this one never runs."
                judgement = Judgement("stray", Severity.ERROR, sentence, _remedy(path))
                yield Finding(judgement, node.line, path)
            waiting += [(entry.value, (*path, name)) for name, entry in node.entries.items()]


def _lists(root: Map) -> Iterable[Items]:
    for flow in METHODS:
        keys = (*FLOWS_PATH, flow)
        for rest in (
            ("before", "hooks"),
            ("after", "hooks"),
            *(("after", method, "hooks") for method in METHODS[flow]),
        ):
            found = value_at(root, *keys, *rest)
            if isinstance(found, Items):
                yield found


def _remedy(path: Path) -> str:
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
