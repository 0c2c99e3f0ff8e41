"""The index in which groups of dead letters are counted has their retries."""

from alembic import op

from kratos_sync.infrastructure.migrations import ConcurrentIndex

revision = "0005"
down_revision = "0004"

INDEXES = (
    ConcurrentIndex(
        "deliveries_groups",
        "deliveries (consumer, error_type, error_shape, failed_at) INCLUDE (retries)"
        " WHERE failed_at IS NOT NULL",
    ),
)


def upgrade() -> None:
    """Count the retries of dead letters until now, and drop the index without them."""
    op.execute("""
        UPDATE kratos_sync.deliveries d SET retries = counted.retries
        FROM (SELECT event_id, consumer, (
                  SELECT count(*) FROM kratos_sync.attempts a
                  WHERE a.event_id = dead.event_id AND a.consumer = dead.consumer
                    AND a.outcome = 'retried') AS retries
              FROM kratos_sync.deliveries dead WHERE failed_at IS NOT NULL) AS counted
        WHERE d.event_id = counted.event_id AND d.consumer = counted.consumer
          AND counted.retries > 0 AND d.retries IS NULL;
        DROP INDEX kratos_sync.deliveries_failures;
    """)
