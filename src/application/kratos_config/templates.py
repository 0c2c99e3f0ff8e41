"""The Jsonnet template that renders a webhook's body: ours, and what another renders."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from kratos_sync.application.kratos_config.findings import Judgement, judgement

MAPPER: Final = """\
function(ctx) {
  identity: if std.objectHas(ctx, 'identity') then ctx.identity else null,
}
"""
"""The identity and nothing else; it renders for every call, with null where there is none."""
SCHEMES: Final = ("base64", "file", "http", "https")
WITH_SESSION: Final = ("login", "settings")
"""The flows after which Kratos gives a template the session."""

_ID: Final = "5f1bb7b2-3c1c-4d5e-8b0a-7a3c1f0e9d11"
_CANARY: Final = "canary-of-a-cookie-or-token"
_TIME: Final = "2026-01-01T00:00:00Z"
_TIMES: Final = {"created_at": _TIME, "updated_at": _TIME}
_ADDRESS: Final[Mapping[str, Any]] = {
    "id": _ID,
    "value": "ada@example.org",
    "verified": True,
    "via": "email",
    "status": "completed",
    "verified_at": _TIME,
    **_TIMES,
}
_SPARSE: Final[Mapping[str, Any]] = {
    "id": _ID,
    "schema_id": "default",
    "schema_url": "https://kratos.example.org/schemas/ZGVmYXVsdA",
    "state": "active",
    "state_changed_at": _TIME,
    "traits": {"email": "ada@example.org"},
    "metadata_public": None,
    **_TIMES,
    "organization_id": None,
}
_IDENTITY: Final[Mapping[str, Any]] = {
    **_SPARSE,
    "external_id": "ada",
    "traits": {
        "email": "ada@example.org",
        "username": "ada",
        "phone": "+442079460958",
        "name": {"first": "Ada", "last": "Lovelace"},
    },
    "metadata_public": {"role": "user"},
    "verifiable_addresses": [_ADDRESS],
    "recovery_addresses": [_ADDRESS],
}
_TOKEN_NODE: Final = {"type": "input", "attributes": {"name": "csrf_token", "value": _CANARY}}
_CALL: Final[Mapping[str, Any]] = {
    "flow": {
        "id": _ID,
        "type": "browser",
        "expires_at": _TIME,
        "issued_at": _TIME,
        **_TIMES,
        "request_url": "https://kratos.example.org/self-service/login/browser",
        "return_to": "https://example.org/",
        "active": "password",
        "ui": {
            "action": "https://kratos.example.org/",
            "method": "POST",
            "nodes": [_TOKEN_NODE],
            "messages": [],
        },
        "state": "success",
        "transient_payload": {},
        "organization_id": None,
        "identity": _IDENTITY,
    },
    "request_headers": {
        name: ["value"]
        for name in (
            *("Accept", "Accept-Encoding", "Accept-Language", "Content-Length", "Content-Type"),
            *("Origin", "Referer", "User-Agent", "True-Client-Ip", "X-Forwarded-For", "Host"),
        )
    },
    "request_method": "POST",
    "request_url": "https://kratos.example.org/self-service/login?flow=1",
    "request_cookies": {"csrf_token": _CANARY, "ory_kratos_session": _CANARY},
    "identity": _IDENTITY,
}
_SESSION: Final[Mapping[str, Any]] = {
    "id": _ID,
    "active": True,
    "expires_at": _TIME,
    "authenticated_at": _TIME,
    "issued_at": _TIME,
    "authenticator_assurance_level": "aal1",
    "authentication_methods": [{"method": "password", "aal": "aal1", "completed_at": _TIME}],
    "identity": _IDENTITY,
    "devices": [{"id": _ID, "ip_address": "192.0.2.1", "user_agent": "agent", "location": ""}],
}
CONTEXTS: Final = tuple(
    json.dumps(context)
    for context in (
        {**_CALL, "session": _SESSION},
        _CALL,
        {**_CALL, "session": _SESSION, "request_headers": {}},
        {**_CALL, "session": _SESSION, "identity": _SPARSE},
    )
)
"""What Kratos gives a template: with and without a session, without headers, of a bare person."""


class Problem(Enum):
    """Why a template was not rendered."""

    NOT_LOOKED_AT = "it is elsewhere"
    NOT_RUN = "it would take too much here"
    FOLDER_ELSEWHERE = "its folder is not on this machine"
    MISSING = "there is no such file"
    NOT_BASE64 = "it is no base64 of a text"
    NOT_JSONNET = "Kratos cannot parse or run it, whatever it is given"
    TOO_SLOW = "it takes longer than Kratos waits"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a template rendered for each context; None where it failed."""

    outputs: Sequence[str | None] = ()
    problem: Problem | None = None


class Templates(Protocol):
    """Finds and runs the templates of a configuration."""

    def render(self, body: str, contexts: Sequence[str]) -> Rendered:
        """Run the template that a `body` names with each context as `ctx`."""
        ...


def inline(template: str = MAPPER) -> str:
    """A template as a URL that Kratos needs no file for."""
    return f"base64://{b64encode(template.encode()).decode()}"


def judge(body: str, templates: Templates) -> Iterator[Judgement]:
    """Why a template is never rendered, whatever it is for."""
    scheme, separator, _ = body.partition("://")
    if not separator or scheme not in SCHEMES:
        yield judgement("body-without-scheme")
    elif scheme in ("http", "https"):
        yield judgement("body-from-web")
    problem = templates.render(body, CONTEXTS).problem
    if problem in _PROBLEMS:
        yield judgement(_PROBLEMS[problem])


def judge_ours(body: str, flow: str, templates: Templates) -> Iterator[Judgement]:
    """Why a template does not render the identity, and only that, after a flow."""
    yield from judge(body, templates)
    rendered = templates.render(body, CONTEXTS)
    if rendered.problem is not None:
        return
    with_session, without_session, without_headers, sparse = rendered.outputs
    output = with_session if flow in WITH_SESSION else without_session
    if output is None:
        yield judgement("body-fails" if with_session is None else "body-needs-session")
        return
    if not _has_identity(output):
        yield judgement("body-without-identity")
        return
    if _CANARY in output:
        yield judgement("body-with-secrets")
    if without_headers is None:
        yield judgement("body-with-headers")
    if sparse is None:
        yield judgement("body-fails-for-some")


def _has_identity(output: str) -> bool:
    try:
        body = json.loads(output)
    except ValueError:
        return False
    identity = body.get("identity") if isinstance(body, dict) else None
    return isinstance(identity, dict) and identity.get("id") == _ID


_PROBLEMS: Final[Mapping[Problem | None, str]] = {
    Problem.FOLDER_ELSEWHERE: "body-not-read",
    Problem.NOT_RUN: "body-not-judged",
    Problem.MISSING: "body-missing",
    Problem.NOT_BASE64: "body-not-base64",
    Problem.NOT_JSONNET: "body-not-jsonnet",
    Problem.TOO_SLOW: "body-too-slow",
}
