"""Hooks that stand where Kratos never looks."""

from collections.abc import Iterable, Iterator

from application.kratos_config.findings import Finding, Judgement, Severity
from application.kratos_config.flows import ALL_METHODS, FLOWS_PATH, METHODS
from application.kratos_config.nodes import Items, Map, Node, Path, text_at, value_at


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
