"""What `--json` prints stays as machines know it, and as `docs/reference/json.md` describes it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from kratos_sync.api.cli import (
    audit,
    check,
    delete,
    erase,
    history,
    purge,
    reconcile,
    replay,
    status,
    sync,
    tail,
    try_,
)
from kratos_sync.api.cli.dead_letters import each_json, event_json, groups_json
from kratos_sync.api.cli.output import echo_json
from kratos_sync.application.ports.activity import SeenAttempt
from kratos_sync.application.ports.dead_letters import DeliveredEvent
from kratos_sync.application.ports.deletions import (
    AwaitedConsumer,
    DeletionProgress,
    Erasable,
    Erased,
)
from kratos_sync.application.ports.hook_log import HookActivity
from kratos_sync.application.ports.kratos import SyncOutcome, SyncResult
from kratos_sync.application.ports.purge import PastPurge, PurgeReport, Removed, Retention
from kratos_sync.application.ports.reconciliation import Findings
from kratos_sync.application.ports.replay import EventRange
from kratos_sync.application.ports.status import BrokerStatus, Failover
from kratos_sync.application.ports.trials import Trial, Writes
from kratos_sync.domain.events import IdentityDeleted
from tests.api.cli.test_harmless_output import (
    AGO,
    CHECKED,
    GROUPS,
    HISTORY,
    LETTER,
    NOW,
    OPERATION,
    STATUS,
)
from tests.infrastructure.ledger.rows import A_MINUTE, SOMEBODY

DOCUMENTS: dict[str, Any] = json.loads(Path(__file__).with_name("json_documents.json").read_text())
DOCS = Path(__file__).parents[3] / "docs" / "reference" / "json.md"
KEPT = Retention(timedelta(days=90), None)
REPORT = replace(
    STATUS,
    template_failures=(HookActivity("login", AGO, NOW, 2),),
    unsafe=("fsync",),
    failover=Failover(AGO, 2, 1, is_same_cluster=True, last_commit_at=AGO, missing_bytes=12_345),
    clock_ahead=timedelta(milliseconds=2),
    storage=replace(
        STATUS.storage, last_purge=PastPurge(AGO, NOW, Removed(1, 2)), oldest_event_at=AGO
    ),
)
EVENT = DeliveredEvent(
    SOMEBODY,
    "identity.registered",
    "webhook",
    AGO,
    AGO,
    HISTORY.events[0].deliveries,
    at=NOW,
    identity_id=SOMEBODY,
    payload='{"a": "b"}',
)
STRETCH = EventRange("Greet", ("identity.registered",), AGO, NOW, SOMEBODY)
RECONCILED = reconcile.Outcome(
    True, "completed", AGO, True, Findings(stale=1, fields={"traits": 1}, unreadable=2), 1.23456
)
DELETED = IdentityDeleted(UUID(int=9), NOW, SOMEBODY, 2)
TRIED = Trial(DELETED, [Writes("acme_sync.letters", 1, 0, 0)], [DELETED], None, 0.0123)
ATTEMPT = SeenAttempt(
    7,
    EVENT.id,
    EVENT.name,
    SOMEBODY,
    "Greet",
    12,
    "gave_up",
    NOW,
    A_MINUTE,
    "smtplib.SMTPDataError",
)
PRINTED: dict[str, Callable[[], dict[str, Any]]] = {
    "status": lambda: status.to_json(REPORT, BrokerStatus({"Greet": 1}), KEPT),
    "audit": lambda: audit.to_json(NOW, [OPERATION], 1),
    "history": lambda: history.to_json(HISTORY, False),
    "history verbose": lambda: history.to_json(HISTORY, True),
    "failed list": lambda: {"at": NOW, **groups_json(GROUPS, False)},
    "failed list verbose": lambda: {"at": NOW, **groups_json(GROUPS, True)},
    "failed list each": lambda: {"at": NOW, **each_json([LETTER], 2, True)},
    "failed show": lambda: event_json(EVENT, EVENT.deliveries, True),
    "check": lambda: {"file": "kratos.yml", **check.to_json(CHECKED)},
    "replay": lambda: replay.to_json(STRETCH, 4, replay.Outcome(1, "Interrupted", 2, AGO), False),
    "try": lambda: try_.to_json(TRIED, False),
    "try verbose": lambda: try_.to_json(TRIED, True),
    "purge": lambda: purge.to_json(PurgeReport(Removed(1, 2), A_MINUTE, True), KEPT, True),
    "delete": lambda: delete.to_json(
        DeletionProgress(AGO, (AwaitedConsumer("Greet", 1, 0),), is_done=False, has_failed=False)
    ),
    "erase": lambda: erase.to_json(Erasable(1, 12, 1, 3, True, None), Erased(12, 1, 3, 7)),
    "sync": lambda: sync.to_json(
        [SOMEBODY, UUID(int=7)],
        [SyncResult(SOMEBODY, SyncOutcome.UPDATED, UUID(int=9), None)],
        True,
    ),
    "tail": lambda: tail.to_json(ATTEMPT),
    "reconcile": lambda: reconcile.to_json(RECONCILED),
}


@pytest.mark.parametrize("name", PRINTED)
def test_the_json_documents_stay_as_they_are(capsys: pytest.CaptureFixture[str], name: str) -> None:
    echo_json(PRINTED[name]())
    printed = json.loads(capsys.readouterr().out)
    assert printed == DOCUMENTS[name]
    assert list(printed) == list(DOCUMENTS[name])


def shape(document: Any) -> Any:
    """The keys of a document, however deep; of a list that of its first entry."""
    if isinstance(document, dict):
        return {key: shape(value) for key, value in document.items()}
    return [shape(each) for each in document[:1]] if isinstance(document, list) else None


DYNAMIC = {"tables", "fields", "unheard", "payload", "scope", "result"}
"""Objects whose keys are names."""


def differing(documented: Any, printed: Any, path: str = "") -> list[str]:
    """Where two shapes differ; what is null or empty in one of them may be anything."""
    if isinstance(documented, dict) and isinstance(printed, dict):
        found = [f"{path}.{key}" for key in documented.keys() ^ printed.keys()]
        shared = (documented.keys() & printed.keys()) - DYNAMIC
        inner = (differing(documented[key], printed[key], f"{path}.{key}") for key in shared)
        return [*found, *(each for more in inner for each in more)]
    if isinstance(documented, list) and isinstance(printed, list) and documented and printed:
        return differing(documented[0], printed[0], f"{path}[]")
    return []


def test_the_documentation_has_the_keys_that_are_printed() -> None:
    block = r"^## `kratos-sync ([a-z -]+)`\n.*?```json\n(.*?)```"
    blocks = re.findall(block, DOCS.read_text(), re.MULTILINE | re.DOTALL)
    documented = {name.replace("-", "").strip(): shape(json.loads(block)) for name, block in blocks}
    names = {name for name in PRINTED if "verbose" not in name}
    assert documented.keys() == names | {"failed retry"}
    for name in names - {"delete", "erase"}:
        assert differing(documented[name], shape(DOCUMENTS[name])) == [], name
    for name in ("delete", "erase"):
        inside = {key: documented[name][key] for key in DOCUMENTS[name]}
        assert differing(inside, shape(DOCUMENTS[name])) == [], name
