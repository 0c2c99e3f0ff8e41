"""Asking Kratos about single identities, on a real PostgreSQL."""
