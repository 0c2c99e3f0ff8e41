"""Erasing people from the ledger in PostgreSQL."""
