"""Where in a file the configuration of Kratos stands."""

from dataclasses import replace
from typing import Final

from application.kratos_config.nodes import ConfigFile, Map, value_at

PLACES: Final = ((), ("kratos", "config"), ("services", "identity", "config"))
"""A file of its own, the values of Ory's Helm chart, and a project of the Ory Network."""


def kratos_part(file: ConfigFile) -> ConfigFile | None:
    """Give the part of a file that configures Kratos, or None if there is none."""
    for keys in PLACES:
        part = value_at(file.root, *keys) if keys else file.root
        if isinstance(part, Map) and isinstance(value_at(part, "selfservice"), Map):
            return replace(file, root=part)
    return None
