"""Which tests run one after the other in one process, where several run them."""

from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from xdist.scheduler.loadfile import LoadFileScheduling

RABBITMQ: Final = "rabbitmq"
"""In the id of every test that uses a RabbitMQ: they share one, which takes seconds to start."""
SLOW: Final = (
    "tests/deploy/",
    "tests/end_to_end/",
    "tests/test_environment.py",
    "tests/servers/",
    "tests/architecture/test_typing_of_applications.py",
    "tests/api/cli/test_dev.py",
    "tests/api/cli/test_new.py",
    "tests/docs/test_site.py",
    "tests/infrastructure/bus/",
    "tests/api/cli/",
    "tests/suites/",
    "tests/odd_settings/",
)
"""Tests that take longest, or wait most: begun in the end, they would run alone."""


def group_of(test: str) -> str:
    """What runs in one process: a file, or all tests with RabbitMQ."""
    return RABBITMQ if RABBITMQ in test else test.partition("::")[0]


def place_of(test: str) -> int:
    """When a test begins, beside others: that of a smaller number first."""
    if RABBITMQ in test:
        return -1
    return next((place for place, path in enumerate(SLOW) if test.startswith(path)), len(SLOW))


def by_group(config: pytest.Config, log: Any) -> "LoadFileScheduling":
    """Groups in the order in which their tests were collected, whatever their number."""
    from xdist.scheduler.loadfile import LoadFileScheduling

    class ByGroup(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return ByGroup(config, log)
