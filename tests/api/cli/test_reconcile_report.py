"""What a reconciliation is told as."""

from kratos_sync.api.cli.reconcile import Outcome, in_words
from kratos_sync.application.ports.reconciliation import Findings


def test_another_kratos_is_not_said_to_be_the_same() -> None:
    refused = Outcome(
        dry_run=False, findings=Findings(held=3), went_wrong="Nobody was deleted: another Kratos."
    )

    assert "the same" not in in_words(refused)
    assert "They are the same." in in_words(Outcome(dry_run=False, findings=Findings(held=3)))
