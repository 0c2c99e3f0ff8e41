"""Reading a whole configuration for what would keep us from hearing of people."""

from collections.abc import Iterator, Sequence

from kratos_sync.application.kratos_config.coverage import (
    HookList,
    coverage_of,
    lists_of,
    strays,
    unheard,
)
from kratos_sync.application.kratos_config.findings import Finding, Judgement, Report, Severity
from kratos_sync.application.kratos_config.flows import METHODS
from kratos_sync.application.kratos_config.hook import SYNC_PATH, Receiver
from kratos_sync.application.kratos_config.list_rules import (
    findings_before,
    findings_of_file,
    findings_of_list,
)
from kratos_sync.application.kratos_config.nodes import ConfigFile
from kratos_sync.application.kratos_config.setting_rules import findings_of_settings
from kratos_sync.application.kratos_config.templates import Templates


def check(file: ConfigFile, receiver: Receiver, templates: Templates) -> Report:
    """Say which flows and methods we hear of, and what is wrong, by line."""
    root = file.root
    findings = [*findings_of_file(file), *findings_of_settings(root), *strays(root)]
    coverage = []
    flows = {flow: lists_of(root, flow, receiver, templates) for flow in METHODS}
    for flow, lists in flows.items():
        coverage += [covered for covered, _ in coverage_of(root, lists)]
        findings += unheard(root, lists)
        findings += findings_before(root, flow, receiver, templates)
        for used in lists:
            findings += findings_of_list(used, root, templates)
            for found in used.found:
                findings += found
        findings += _without_common(lists)
    findings += _without_us([used for lists in flows.values() for used in lists])
    return Report(sorted(findings, key=lambda finding: finding.line), coverage)


def _without_us(lists: Sequence[HookList]) -> Iterator[Finding]:
    others = [hook for used in lists for hook in used.hooks if hook.is_web_hook]
    if others and not any(used.ours for used in lists):
        sentence = f"No webhook calls {SYNC_PATH}."
        remedy = "If we have another address, name it with --url."
        judgement = Judgement("nobody-for-us", Severity.NOTE, sentence, remedy)
        yield Finding(judgement, others[0].line_of("url"), others[0].path)


def _without_common(lists: Sequence[HookList]) -> Iterator[Finding]:
    common, *methods = lists
    if methods and not common.is_telling and all(own.is_telling for own in methods):
        sentence = f"{common.place.flow}: a method that a later Kratos brings is not heard."
        remedy = "Put the web_hook directly under `after` too."
        judgement = Judgement("no-common-hook", Severity.NOTE, sentence, remedy)
        yield Finding(judgement, common.line, common.place.keys)
