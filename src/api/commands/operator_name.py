"""Who it is that decides something at the command line."""

import getpass
import os


def operator_name(given: str | None) -> str:
    """Give the name that was given, or else that of the operating system's user."""
    if given and given.strip():
        return given.strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return f"user {os.getuid()}"
