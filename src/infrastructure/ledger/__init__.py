"""The ledger in PostgreSQL: every event, what is still owed to each consumer, every attempt."""
