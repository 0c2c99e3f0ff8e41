"""The event bus on Dramatiq: the ledger decides what is owed, the broker only carries pointers."""
