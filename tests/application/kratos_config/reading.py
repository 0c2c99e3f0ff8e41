"""Configurations of a few lines, and what a check says of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from textwrap import indent

from kratos_sync.application.kratos_config.check import Report, check
from kratos_sync.application.kratos_config.hooks import Receiver
from kratos_sync.application.kratos_config.templates import Problem, Rendered
from kratos_sync.infrastructure.kratos.config_file import read_config

CONFIG = """\
url: http://api:8000/kratos/sync-identity
method: POST
auth: {type: api_key, config: {in: header, name: X-Api-Key, value: key}}
body: file:///etc/mapper.jsonnet
response: {ignore: true}
"""


class NoTemplates:
    """Finds none: what templates make is a matter of tests of their own."""

    def render(self, body: str, contexts: Sequence[str]) -> Rendered:
        return Problem.NOT_LOOKED_AT


@dataclass(frozen=True)
class Checked:
    """A report, asked for what tests want to know."""

    report: Report

    def __contains__(self, rule: str) -> bool:
        return rule in self.rules

    @property
    def rules(self) -> Collection[str]:
        return [finding.rule for finding in self.report.findings]

    def lines(self, rule: str) -> list[int]:
        found = self.report.findings
        return [finding.line for finding in found if finding.rule == rule]

    def uncovered(self) -> set[str]:
        return {str(c.place) for c in self.report.coverage if c.is_on and not c.is_covered}


def checked(text: str, receiver: Receiver | None = None) -> Checked:
    return Checked(check(read_config(text.encode()), receiver or Receiver(), NoTemplates()))


def web_hook(config: str = CONFIG, name: str = "web_hook") -> str:
    """A hook, as an item of a list."""
    return f"- hook: {name}\n  config:\n{indent(config, '    ')}"


def instead(old: str, new: str) -> str:
    """The settings of a good hook with one thing changed."""
    assert old in CONFIG
    return CONFIG.replace(old, new)


def flow(
    name: str, hooks: str, *, elsewhere: str = "", under: str = "after", method: str | None = None
) -> str:
    """A configuration in which one flow has these hooks, and all others are covered."""
    flows = ("registration", "login", "settings", "verification", "recovery")
    covered = "".join(
        f"    {other}:\n      after:\n        hooks:\n{indent(web_hook(), ' ' * 8)}"
        for other in flows
        if other != name and f"    {other}:" not in elsewhere
    )
    listed = f"hooks:\n{hooks}" if method is None else f"{method}:\n  hooks:\n{indent(hooks, '  ')}"
    own = f"    {name}:\n      {under}:\n{indent(listed, ' ' * 8)}\n"
    enabled = "      enabled: true\n" if name in ("verification", "recovery") else ""
    return f"selfservice:\n  flows:\n{own}{enabled}{covered}{elsewhere}"
