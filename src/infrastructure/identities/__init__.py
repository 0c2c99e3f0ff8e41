"""Our copy of the identities, in PostgreSQL."""
