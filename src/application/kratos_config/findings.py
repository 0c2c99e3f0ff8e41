"""What a check says: findings, and which places are heard."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from application.kratos_config.flows import Place
from application.kratos_config.nodes import Path


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
