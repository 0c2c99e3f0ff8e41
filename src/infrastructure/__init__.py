"""Adapters of the application's ports: PostgreSQL, Dramatiq on Redis, Kratos' Admin API.

Knows the application and the domain; nothing but entry points knows it.
"""
