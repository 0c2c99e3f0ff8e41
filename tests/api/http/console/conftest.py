from collections.abc import Callable, Iterator

import pytest

from kratos_sync.api.http.console.access import Operator
from kratos_sync.infrastructure.container import Container
from tests.api.http.console.provider import Provider, providing
from tests.api.http.console.signing_in import Browser, Console
from tests.api.http.console.visiting import EVERYTHING, Visitor, console_of, open_routes

Visit = Callable[[Operator], Visitor]


@pytest.fixture
def kept_seconds() -> int:
    """Pages ask each time, as tests change what is recorded behind the console's back."""
    return 0


@pytest.fixture
def visit(container: Container, kept_seconds: int) -> Iterator[Visit]:
    """Opens the whole console on the test's database, as an operator."""
    kept = {"console_kept_seconds": kept_seconds}
    container.settings.override(container.settings().model_copy(update=kept))
    with open_routes(container) as routes:
        yield lambda operator: Visitor(console_of(container, operator, routes))


@pytest.fixture
def visitor(visit: Visit) -> Visitor:
    """With every role."""
    return visit(EVERYTHING)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with providing() as provider:
        yield provider


@pytest.fixture
def console(provider: Provider) -> Console:
    return Console(provider)


@pytest.fixture
def browser(console: Console) -> Browser:
    return console.browser()
