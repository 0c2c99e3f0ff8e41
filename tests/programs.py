"""Programs that tests use where they are installed."""

import os
import shutil
from typing import Final, NoReturn

import pytest

REQUIRED: Final = "CI_REQUIRE_SERVERS"
"""Where this is set, a test fails that is skipped elsewhere because a program is missing."""
PLACES: Final = (os.environ.get("PATH", os.defpath), "/usr/sbin")


def installed_program(program: str, package: str) -> str:
    """The path of a program of a package of Debian's; skips the test without it."""
    found = shutil.which(program, path=os.pathsep.join(PLACES))
    if found is None:
        missing(f"{program} is not installed here (Debian: apt-get install {package})")
    return found


def missing(reason: str) -> NoReturn:
    """Skip the test; where programs are required it fails."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, and {reason}", pytrace=False)
    pytest.skip(reason)
