"""What was recorded about an identity since a moment is found at once."""

from alembic import op

revision = "0008"
down_revision = "0004"

# The old index is one of this one's prefixes.
CHANGES = """
CREATE INDEX events_subject_recorded_at ON kratos_sync.events (subject, recorded_at);
DROP INDEX kratos_sync.events_subject;
"""


def upgrade() -> None:
    """Replace the index."""
    op.execute(CHANGES)
