"""PostgreSQL adapters that everything else shares: connections, transactions, codecs."""
