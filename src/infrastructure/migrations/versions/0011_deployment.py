"""An id of the deployment, by which its queues at a broker are told from those of others."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the table, with its row."""
    op.execute("""
        CREATE TABLE kratos_sync.deployment (
            is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
            id uuid NOT NULL DEFAULT gen_random_uuid()
        )
    """)
    op.execute("INSERT INTO kratos_sync.deployment DEFAULT VALUES")
    op.execute("""
        COMMENT ON TABLE kratos_sync.deployment IS
            'One row: what the queues of this deployment are named by at the broker'
    """)
