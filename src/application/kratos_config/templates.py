"""The Jsonnet template that renders a webhook's body: ours, and what another renders."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias

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
_TIMES: Final = dict.fromkeys(("created_at", "updated_at"), _TIME)
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
    **dict.fromkeys(("metadata_public", "organization_id")),
    **_TIMES,
}
_NAME: Final = {"first": "Ada", "last": "Lovelace"}
_IDENTITY: Final[Mapping[str, Any]] = {
    **_SPARSE,
    "external_id": "ada",
    "traits": {**_SPARSE["traits"], "username": "ada", "phone": "+442079460958", "name": _NAME},
    "metadata_public": {"role": "user"},
    "verifiable_addresses": [_ADDRESS],
    "recovery_addresses": [_ADDRESS],
}
_TOKEN: Final = {"type": "input", "attributes": {"name": "csrf_token", "value": _CANARY}}
_FLOW: Final[Mapping[str, Any]] = {
    "id": _ID,
    "type": "browser",
    "request_url": "https://kratos.example.org/self-service/login/browser",
    "return_to": "https://example.org/",
    "active": "password",
    "ui": {
        "action": "https://kratos.example.org/",
        "method": "POST",
        "nodes": [_TOKEN],
        "messages": [],
    },
    "state": "success",
    "transient_payload": {},
    "organization_id": None,
    "identity": _IDENTITY,
    **dict.fromkeys(("expires_at", "issued_at"), _TIME),
    **_TIMES,
}
_HEADERS: Final = (
    *("Accept", "Accept-Encoding", "Accept-Language", "Content-Length", "Content-Type"),
    *("Origin", "Referer", "User-Agent", "True-Client-Ip", "X-Forwarded-For", "Host"),
)
_CALL: Final[Mapping[str, Any]] = {
    "flow": _FLOW,
    "request_headers": {name: ["value"] for name in _HEADERS},
    "request_method": "POST",
    "request_url": "https://kratos.example.org/self-service/login?flow=1",
    "request_cookies": {"csrf_token": _CANARY, "ory_kratos_session": _CANARY},
    "identity": _IDENTITY,
}
_SESSION: Final[Mapping[str, Any]] = {
    "id": _ID,
    "active": True,
    **dict.fromkeys(("expires_at", "authenticated_at", "issued_at"), _TIME),
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
    """Why a template was not rendered: the name of the rule that reports it, if one does."""

    NOT_LOOKED_AT = ""
    NOT_RUN = "body-not-judged"
    FOLDER_ELSEWHERE = "body-not-read"
    MISSING = "body-missing"
    NOT_BASE64 = "body-not-base64"
    NOT_JSONNET = "body-not-jsonnet"
    TOO_SLOW = "body-too-slow"


Rendered: TypeAlias = Sequence[str | None] | Problem
"""What a template rendered for each context, None where it failed; or why it did not run."""


class Templates(Protocol):
    """Finds and runs the templates of a configuration."""

    def render(self, body: str, contexts: Sequence[str]) -> Rendered:
        """Run the template that a `body` names with each context as `ctx`."""


def inline(template: str = MAPPER) -> str:
    """A template as a URL that Kratos needs no file for."""
    return f"base64://{b64encode(template.encode()).decode()}"


def judge(body: str, templates: Templates) -> Iterator[str]:
    """The rules by which a template is never rendered, whatever it is for."""
    scheme, separator, _ = body.partition("://")
    if not separator or scheme not in SCHEMES:
        yield "body-without-scheme"
    elif scheme in ("http", "https"):
        yield "body-from-web"
    rendered = templates.render(body, CONTEXTS)
    if isinstance(rendered, Problem) and rendered.value:
        yield rendered.value


def judge_ours(body: str, flow: str, templates: Templates) -> Iterator[str]:
    """The rules by which a template does not render the identity, and only that, after a flow."""
    yield from judge(body, templates)
    rendered = templates.render(body, CONTEXTS)
    if isinstance(rendered, Problem):
        return
    with_session, without_session, without_headers, sparse = rendered
    output = with_session if flow in WITH_SESSION else without_session
    if output is None:
        yield "body-fails" if with_session is None else "body-needs-session"
        return
    if not _has_identity(output):
        yield "body-without-identity"
        return
    if _CANARY in output:
        yield "body-with-secrets"
    if without_headers is None:
        yield "body-with-headers"
    if sparse is None:
        yield "body-fails-for-some"


def _has_identity(output: str) -> bool:
    try:
        return bool(json.loads(output)["identity"]["id"] == _ID)
    except (ValueError, LookupError, TypeError):
        return False
