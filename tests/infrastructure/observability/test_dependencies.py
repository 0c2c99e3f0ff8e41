"""Whether what a process needs can be used."""

import threading
from collections.abc import Iterator

import pytest

from kratos_sync.infrastructure.observability import dependencies
from kratos_sync.infrastructure.observability.dependencies import Dependency
from tests.waiting import until


class Service:
    """Something that a process needs; it fails or hangs as a test wants."""

    def __init__(self) -> None:
        self.fails = False
        self.answers = threading.Event()
        self.answers.set()
        self.checks = 0

    def check(self) -> None:
        self.checks += 1
        self.answers.wait()
        if self.fails:
            raise ConnectionError

    def checked_again(self) -> None:
        checks = self.checks
        until(lambda: self.checks > checks + 1)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.answers.set()


@pytest.fixture
def dependency(service: Service) -> Iterator[Dependency]:
    dependency = Dependency("check", 0.001)
    yield dependency
    dependency.stop()


def test_it_is_down_before_the_first_check(dependency: Dependency) -> None:
    assert not dependency.is_up
    assert dependency.outages == 0


def test_it_is_up_while_checks_succeed(dependency: Dependency, service: Service) -> None:
    dependency.start(service.check)
    until(lambda: dependency.is_up)
    assert dependency.outages == 0


def test_every_outage_counts_once_however_long_it_takes(
    dependency: Dependency, service: Service
) -> None:
    dependency.start(service.check)
    for number in (1, 2):
        service.fails = False
        until(lambda: dependency.is_up)
        service.fails = True
        until(lambda: not dependency.is_up)
        service.checked_again()
        assert dependency.outages == number


def test_an_outage_between_two_checks_counts_too(service: Service) -> None:
    dependency = Dependency("check", 1_000)
    dependency.start(service.check)
    until(lambda: dependency.is_up)
    dependency.failed()
    dependency.failed()
    assert (dependency.is_up, dependency.outages) == (False, 1)


def test_a_check_that_does_not_return_has_failed(
    dependency: Dependency, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependencies, "LATE_SECONDS", 0.2)
    dependency.start(service.check)
    until(lambda: dependency.is_up)
    service.answers.clear()
    until(lambda: not dependency.is_up)
    service.answers.set()
    until(lambda: dependency.is_up)
    assert dependency.outages >= 1


def test_the_check_that_was_given_last_is_the_only_one(
    dependency: Dependency, service: Service
) -> None:
    dependency.start(service.check)
    until(lambda: service.checks > 0)
    other = Service()
    dependency.start(other.check)
    other.checked_again()
    checks = service.checks
    other.checked_again()

    assert service.checks == checks
