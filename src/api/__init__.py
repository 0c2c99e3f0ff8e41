"""Entry points: Kratos' webhooks, health checks and the command line.

Knows the application and the domain; only its entry points under `api.cli` know the container.
"""
