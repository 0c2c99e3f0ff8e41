from time import process_time

import pytest

from kratos_sync.application.kratos_config.hooks import Receiver
from tests.application.kratos_config.reading import Checked, checked, flow, instead, web_hook

OURS = "http://api:8000/kratos/sync-identity"


def with_protection(url: str, *exceptions: str) -> Checked:
    clients = (
        "clients:\n  http:\n    disallow_private_ip_ranges: true\n"
        f"    private_ip_exception_urls: {list(exceptions)}\n"
    )
    hooks = flow("login", web_hook()).replace(OURS, url)
    return checked(clients + hooks, Receiver(url=url))


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.1.2.3", "[::1]", "[fd00::1]", "169.254.1.1"),
        *("api", "localhost", "sync.default.svc.cluster.local", "host.docker.internal"),
    ],
)
def test_a_private_receiver_is_never_called(host: str) -> None:
    found = with_protection(f"http://{host}:8000/kratos/sync-identity")

    assert "private" in found
    assert not found.report.passed


@pytest.mark.parametrize(
    ("host", "rules"), [("1.1.1.1", set()), ("sync.example.org", {"perhaps-private"})]
)
def test_a_public_receiver_may_be_called(host: str, rules: set[str]) -> None:
    found = with_protection(f"https://{host}/kratos/sync-identity")

    assert set(found.rules) == rules
    assert found.report.passed


@pytest.mark.parametrize(
    ("exception", "is_excepted"),
    [
        (OURS, True),
        ("http://api:8000/kratos/*", True),
        ("http://api:8000/**", True),
        ("http://api:8000/*", False),
        ("http://api:8000/kratos", False),
        ("http://API:8000/kratos/sync-identity", False),
    ],
)
def test_an_exception_covers_the_addresses_that_it_covers_in_kratos(
    exception: str, is_excepted: bool
) -> None:
    assert ("private" not in with_protection(OURS, exception)) is is_excepted


def test_without_the_protection_a_private_receiver_is_fine() -> None:
    loopback = web_hook(instead("http://api", "http://127.0.0.1"))

    assert checked(flow("login", loopback)).rules == []


def test_a_hostile_pattern_is_matched_in_bounded_time() -> None:
    url = f"http://{'a' * 400}/kratos/sync-identity"
    began = process_time()

    assert "private" in with_protection(url, *[f"http://{'*a' * 200}b{n}" for n in range(5)])
    assert process_time() - began < 5
