"""The Jsonnet template that makes a webhook's body: ours, and what comes of another."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from kratos_sync.application.kratos_config.findings import Judgement, Severity

ID: Final = "5f1bb7b2-3c1c-4d5e-8b0a-7a3c1f0e9d11"
CANARY: Final = "canary-of-a-cookie-or-token"
_TIME: Final = "2026-01-01T00:00:00Z"
_ADDRESS: Final[Mapping[str, Any]] = {
    "id": ID,
    "value": "ada@example.org",
    "verified": True,
    "via": "email",
    "status": "completed",
    "verified_at": _TIME,
    "created_at": _TIME,
    "updated_at": _TIME,
}
_SPARSE: Final[Mapping[str, Any]] = {
    "id": ID,
    "schema_id": "default",
    "schema_url": "https://kratos.example.org/schemas/ZGVmYXVsdA",
    "state": "active",
    "state_changed_at": _TIME,
    "traits": {"email": "ada@example.org"},
    "metadata_public": None,
    "created_at": _TIME,
    "updated_at": _TIME,
    "organization_id": None,
}
IDENTITY: Final[Mapping[str, Any]] = {
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
_CALL: Final[Mapping[str, Any]] = {
    "flow": {
        "id": ID,
        "type": "browser",
        "expires_at": _TIME,
        "issued_at": _TIME,
        "created_at": _TIME,
        "updated_at": _TIME,
        "request_url": "https://kratos.example.org/self-service/login/browser",
        "return_to": "https://example.org/",
        "active": "password",
        "ui": {
            "action": "https://kratos.example.org/",
            "method": "POST",
            "nodes": [
                {"type": "input", "attributes": {"name": "csrf_token", "value": CANARY}},
            ],
            "messages": [],
        },
        "state": "success",
        "transient_payload": {},
        "organization_id": None,
        "identity": IDENTITY,
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
    "request_cookies": {"csrf_token": CANARY, "ory_kratos_session": CANARY},
    "identity": IDENTITY,
}
_SESSION: Final[Mapping[str, Any]] = {
    "id": ID,
    "active": True,
    "expires_at": _TIME,
    "authenticated_at": _TIME,
    "issued_at": _TIME,
    "authenticator_assurance_level": "aal1",
    "authentication_methods": [{"method": "password", "aal": "aal1", "completed_at": _TIME}],
    "identity": IDENTITY,
    "devices": [{"id": ID, "ip_address": "192.0.2.1", "user_agent": "agent", "location": ""}],
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


MAPPER: Final = """\
function(ctx) {
  identity: if std.objectHas(ctx, 'identity') then ctx.identity else null,
}
"""
"""The identity and nothing else; it renders for every call, with null where there is none."""
SCHEMES: Final = ("base64", "file", "http", "https")
WITH_SESSION: Final = ("login", "settings")
"""The flows after which Kratos gives a template the session."""

_OURS: Final = "Take the one that `kratos-sync hooks` prints."


class Problem(Enum):
    """Why there is nothing that a template rendered."""

    NOT_LOOKED_AT = "it is elsewhere"
    NOT_RUN = "it would take too much here"
    FOLDER_ELSEWHERE = "its folder is not on this machine"
    MISSING = "there is no such file"
    NOT_BASE64 = "it is no base64 of a text"
    NOT_JSONNET = "Kratos cannot parse or run it, whatever it is given"
    TOO_SLOW = "it takes longer than Kratos waits"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a template made of each context; None where it failed."""

    outputs: Sequence[str | None] = ()
    problem: Problem | None = None


class Templates(Protocol):
    """Finds and runs the templates of a configuration."""

    def render(self, body: str, contexts: Sequence[str]) -> Rendered:
        """Run the template that a ``body`` names with each context as ``ctx``."""
        ...


def inline(template: str = MAPPER) -> str:
    """Give a template as a URL that Kratos needs no file for."""
    return f"base64://{b64encode(template.encode()).decode()}"


def judge_reference(body: str) -> Iterator[Judgement]:
    """Say what is wrong with the way in which ``body`` names its template."""
    scheme, separator, _ = body.partition("://")
    if not separator or scheme not in SCHEMES:
        yield Judgement(
            "body-without-scheme",
            Severity.WARNING,
            "The body is a path without a scheme, which Kratos has deprecated.",
            "Write file:// before it.",
        )
    elif scheme in ("http", "https"):
        yield Judgement(
            "body-from-web",
            Severity.WARNING,
            "The body's template is fetched over HTTP and kept for 60 minutes: a change is late,"
            " and while its server is away the hook is not sent. It was not looked at.",
            "Let it be a file:// or base64://.",
        )


def judge(body: str, templates: Templates) -> Iterator[Judgement]:
    """Say why a template is never rendered, whatever it is for."""
    yield from judge_reference(body)
    problem = templates.render(body, CONTEXTS).problem
    if problem in _PROBLEMS:
        yield _PROBLEMS[problem]


def judge_ours(body: str, flow: str, templates: Templates) -> Iterator[Judgement]:
    """Say why a template does not give us the identity, and only that, after a flow."""
    yield from judge(body, templates)
    rendered = templates.render(body, CONTEXTS)
    if rendered.problem is not None:
        return
    with_session, without_session, without_headers, sparse = rendered.outputs
    output = with_session if flow in WITH_SESSION else without_session
    if output is None:
        yield _NEEDS_SESSION if with_session is not None else _FAILS
        return
    if not _has_identity(output):
        yield _NO_IDENTITY
        return
    if CANARY in output:
        yield _HAS_CANARYS
    if without_headers is None:
        yield _NEEDS_HEADERS
    if sparse is None:
        yield _NEEDS_MORE


def _has_identity(output: str) -> bool:
    try:
        body = json.loads(output)
    except ValueError:
        return False
    identity = body.get("identity") if isinstance(body, dict) else None
    return isinstance(identity, dict) and identity.get("id") == ID


_PROBLEMS: Final[Mapping[Problem | None, Judgement]] = {
    Problem.FOLDER_ELSEWHERE: Judgement(
        "body-not-read",
        Severity.NOTE,
        "The template's folder is not on this machine: it was not looked at.",
        "Put the template beside the configuration, and it is.",
    ),
    Problem.NOT_RUN: Judgement(
        "body-not-judged",
        Severity.NOTE,
        "The template takes too much to be run here: it was not judged.",
        "See that it renders for every flow: where it fails, nothing is sent.",
    ),
    Problem.MISSING: Judgement(
        "body-missing",
        Severity.ERROR,
        "There is no such template: the hook is never sent.",
        "Correct the path, or take what `kratos-sync hooks` prints.",
    ),
    Problem.NOT_BASE64: Judgement(
        "body-not-base64",
        Severity.ERROR,
        "The body is no base64 of a text: the hook is never sent.",
        _OURS,
    ),
    Problem.NOT_JSONNET: Judgement(
        "body-not-jsonnet",
        Severity.ERROR,
        "The template is no Jsonnet that Kratos can run: the hook is never sent.",
        "Correct it: a function of `ctx`, without imports or external variables.",
    ),
    Problem.TOO_SLOW: Judgement(
        "body-too-slow",
        Severity.ERROR,
        "The template takes longer than the second that Kratos gives it: the hook is never sent.",
        _OURS,
    ),
}
_NO_IDENTITY: Final = Judgement(
    "body-without-identity",
    Severity.ERROR,
    "The body has no field `identity` with the identity: we refuse every call, and none is"
    " repeated.",
    _OURS,
)
_NEEDS_SESSION: Final = Judgement(
    "body-needs-session",
    Severity.ERROR,
    "The template needs a session, and this flow gives it none: the hook is never sent.",
    _OURS,
)
_FAILS: Final = Judgement(
    "body-fails",
    Severity.WARNING,
    "The template fails on an example of what Kratos gives it: where it fails, nothing is sent.",
    "See that it renders for every flow and everybody.",
)
_HAS_CANARYS: Final = Judgement(
    "body-with-secrets",
    Severity.WARNING,
    "The body carries more than the identity: a cookie of the session, or the flow's CSRF token.",
    _OURS,
)
_NEEDS_HEADERS: Final = Judgement(
    "body-with-headers",
    Severity.WARNING,
    "The body reads request headers: without such a header, or if"
    " clients.web_hook.header_allowlist leaves it out, the template fails and the hook is"
    " not sent.",
    _OURS,
)
_NEEDS_MORE: Final = Judgement(
    "body-fails-for-some",
    Severity.WARNING,
    "The template fails for a person without addresses, metadata or external id: nothing is sent"
    " of them.",
    "Ask `std.objectHas` before you read what may be absent.",
)
