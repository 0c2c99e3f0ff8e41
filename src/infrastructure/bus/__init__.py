"""The bus on Dramatiq: the ledger decides what is pending, the broker only carries pointers."""
