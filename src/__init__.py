"""Keeps an application's own copy of its Ory Kratos identities right."""
