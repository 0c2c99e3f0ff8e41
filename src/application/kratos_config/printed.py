"""The hooks that a Kratos needs so that we hear of every flow and method."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from application.kratos_config.flows import METHODS, Place

Json: TypeAlias = "str | bool | list[Json] | dict[str, Json]"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How Kratos shall call us. ``body`` is the URL of the template, ``methods`` get own lists."""

    url: str
    header: str
    key: str
    body: str
    methods: Collection[str]
    with_session: bool


def configuration(wanted: Wanted) -> dict[str, Json]:
    """Give the part of a Kratos configuration that has the hooks, from ``selfservice`` on."""
    return {"selfservice": {"flows": {flow: {"after": _after(flow, wanted)} for flow in METHODS}}}


def _after(flow: str, wanted: Wanted) -> Json:
    after: dict[str, Json] = {"hooks": [_web_hook(Place(flow), wanted)]}
    for method in METHODS[flow]:
        if method in wanted.methods:
            hooks: list[Json] = [_web_hook(Place(flow, method), wanted)]
            if wanted.with_session and flow == "registration":
                hooks.append({"hook": "session"})
            after[method] = {"hooks": hooks}
    return after


def _web_hook(place: Place, wanted: Wanted) -> Json:
    key = {"in": "header", "name": wanted.header, "value": wanted.key}
    return {
        "hook": "web_hook",
        "config": {
            "url": wanted.url,
            "method": "POST",
            "headers": {"X-Kratos-Hook": str(place)},
            "auth": {"type": "api_key", "config": dict(key)},
            "body": wanted.body,
            "response": {"ignore": True},
        },
    }
