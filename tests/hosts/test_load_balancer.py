"""The load balancer calls in turn the apis that are ready."""

from collections import Counter

from tests.hosts.load_balancer import LoadBalancer

APIS = ["one", "two", "three"]


def first(balancer: LoadBalancer, times: int) -> Counter[str]:
    return Counter(balancer.route()[0] for _ in range(times))


def test_each_ready_api_gets_the_same_number_of_calls_and_the_others_none() -> None:
    balancer = LoadBalancer(APIS)
    balancer.ready = set(APIS)
    assert first(balancer, 9) == {"one": 3, "two": 3, "three": 3}
    balancer.ready.discard("two")
    assert "two" not in first(balancer, 9)


def test_a_call_that_reaches_none_goes_to_the_next() -> None:
    balancer = LoadBalancer(APIS)
    balancer.ready = set(APIS)
    assert sorted(balancer.route()) == sorted(APIS)


def test_all_are_called_while_none_is_ready() -> None:
    assert sorted(LoadBalancer(APIS).route()) == sorted(APIS)
