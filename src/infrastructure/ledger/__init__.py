"""The ledger in PostgreSQL: every event, the pending deliveries, every attempt."""
