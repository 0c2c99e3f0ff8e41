"""What a check says: findings, and which places are heard."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from kratos_sync.application.kratos_config.flows import METHODS, Place
from kratos_sync.application.kratos_config.nodes import Path


class Severity(StrEnum):
    """How much a finding matters; only an error makes a check fail."""

    ERROR = "error"
    """Something that happens to people is never told, or a hook breaks a flow."""
    WARNING = "warning"
    """It works today, and not in every case."""
    NOTE = "note"
    """It would matter if something were turned on, or the file alone cannot tell."""


class Judgement(NamedTuple):
    """What is to be known: a sentence on what happens, and one on what to do about it.

    ``rule`` is a short name that stays the same over releases. Nothing here quotes a value.
    """

    rule: str
    severity: Severity
    sentence: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A judgement, and where in the file it applies."""

    judgement: Judgement
    line: int
    path: Path

    @property
    def severity(self) -> Severity:
        """How much it matters."""
        return self.judgement.severity


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether we hear of what happens at a place, and from which list of hooks."""

    place: Place
    is_on: bool
    is_heard: bool
    by: Path
    """The list that Kratos runs there: the method's own, or the flow's."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that a check found, by line."""

    findings: Sequence[Finding]
    coverage: Sequence[Coverage]

    @property
    def passed(self) -> bool:
        """Whether there is no error: everything that is on is heard, and every hook runs."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)


def plural_are(names: Sequence[str]) -> str:
    """Give ``a is``, ``a and b are`` or ``a, b and c are``."""
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{', '.join(names[:-1])} and {names[-1]} are"


Json: TypeAlias = "str | bool | list[Json] | dict[str, Json]"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How Kratos shall call us. ``body`` is the URL of the template, ``methods`` get own lists."""

    url: str
    header: str
    key: str
    body: str
    methods: Collection[str]
    with_session: bool


def configuration(wanted: Wanted) -> dict[str, Json]:
    """Give the part of a Kratos configuration that has the hooks, from ``selfservice`` on."""
    return {"selfservice": {"flows": {flow: {"after": _after(flow, wanted)} for flow in METHODS}}}


def _after(flow: str, wanted: Wanted) -> Json:
    after: dict[str, Json] = {"hooks": [_web_hook(Place(flow), wanted)]}
    for method in METHODS[flow]:
        if method in wanted.methods:
            hooks: list[Json] = [_web_hook(Place(flow, method), wanted)]
            if wanted.with_session and flow == "registration":
                hooks.append({"hook": "session"})
            after[method] = {"hooks": hooks}
    return after


def _web_hook(place: Place, wanted: Wanted) -> Json:
    key = {"in": "header", "name": wanted.header, "value": wanted.key}
    return {
        "hook": "web_hook",
        "config": {
            "url": wanted.url,
            "method": "POST",
            "headers": {"X-Kratos-Hook": str(place)},
            "auth": {"type": "api_key", "config": dict(key)},
            "body": wanted.body,
            "response": {"ignore": True},
        },
    }
