"""Deleting an identity here and in Kratos, durably, on PostgreSQL."""
