"""What was recorded about an identity since a moment is found at once."""

from alembic import op

from kratos_sync.infrastructure.migrations import ConcurrentIndex

revision = "0008"
down_revision = "0006"

INDEXES = (ConcurrentIndex("events_subject_recorded_at", "events (subject, recorded_at)"),)


def upgrade() -> None:
    """Drop the old index: it is one of the new one's prefixes."""
    op.execute("DROP INDEX kratos_sync.events_subject")
