"""The command line with a consumer and endpoints whose errors quote whatever they were given.

Run as a script, in place of `kratos-sync`: application code does such things.
"""

import asyncio
import json
import logging
import os
import threading
import warnings
from datetime import timedelta
from typing import NoReturn

from starlette.requests import Request

from kratos_sync.api.cli import main
from kratos_sync.api.http.app import Health
from kratos_sync.api.http.webhooks.parse_identity import KratosIdentityParseHandler, ParsedIdentity
from kratos_sync.application.application import Application
from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import KratosIdentityUpdated


class FailsWhenCollected:
    """Fails when it is garbage collected."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __del__(self) -> None:
        raise ValueError(f"forgot {self._text}")


class QuotePerson(Consumer[KratosIdentityUpdated]):
    """Say everything about a person, in every way that is no log line of its own."""

    name = "QuotePerson"
    max_attempts = 2
    first_backoff = timedelta(milliseconds=100)

    def consume(self, event: KratosIdentityUpdated) -> None:
        person = json.dumps(event.to_json(), ensure_ascii=False)
        warnings.warn(f"odd: {person}", stacklevel=1)
        logging.getLogger("a.library").info("mailing %s", person)
        logging.getLogger("a.library").warning("cannot mail: %s", ValueError(person))
        logging.getLogger("a.library").error("wrongly %d formatted", person)
        logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %s", person)
        thread = threading.Thread(target=_fail, args=(person,), name="quoting")
        thread.start()
        thread.join()
        FailsWhenCollected(person)
        try:
            _fail(person)
        except ValueError as error:
            traits = event.identity.document["traits"]
            raise RuntimeError(f"no mail for {_in_a_line(traits)} in {person}") from error


def _in_a_line(value: object) -> str:
    return " ".join(map(_in_a_line, value.values())) if isinstance(value, dict) else f"{value}"


def _fail(text: str) -> NoReturn:
    raise ValueError(f"cannot read {text}")


def _parse(self: KratosIdentityParseHandler, identity: ParsedIdentity) -> NoReturn:
    _fail(f"{identity.traits} {identity.document}")


async def _live(self: Health, request: Request) -> NoReturn:
    async def abandoned() -> NoReturn:
        _fail(f"{request.headers}")

    asyncio.get_running_loop().call_soon(_fail, f"{request.headers} {request.url}")
    task = asyncio.create_task(abandoned(), name=f"{request.headers}")
    await asyncio.wait([task])
    del task
    _fail(f"{request.headers} {request.url}")


warnings.simplefilter("always")
app = Application(subscriptions={KratosIdentityUpdated: [QuotePerson]})
os.environ["KRATOS_SYNC_APP"] = "quoting:app"
KratosIdentityParseHandler.parse = _parse  # type: ignore[method-assign]
Health.live = _live  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
