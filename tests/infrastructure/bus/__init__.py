"""The bus against a real PostgreSQL and a real Valkey."""
