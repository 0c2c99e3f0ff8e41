"""`POST /kratos/parse-identity`: a `parse` hook asks before Kratos stores an identity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, Self, TypedDict
from uuid import UUID

import anyio
import anyio.to_thread
import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.webhooks.errors import DetailedMessage, ErrorMessage
from api.webhooks.handler import KratosWebHookHandler, KratosWebHookHandlerConfig
from api.webhooks.headers import first_headers, hook_label
from api.webhooks.identity_body import read_identity, refuse
from domain import fields
from domain.fields import InvalidField
from domain.json_values import Json

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ParsedIdentity:
    """An identity as it would be stored; at a registration it has no id, and times of year 1."""

    id: UUID | None
    schema_id: str | None
    state: str | None
    external_id: str | None = field(repr=False)
    traits: Mapping[str, Json] = field(repr=False)
    metadata_public: Json = field(repr=False)
    document: Mapping[str, Json] = field(repr=False)
    """All of it as Kratos sent it; to change something, return it."""

    @property
    def is_registration(self) -> bool:
        """Whether Kratos asks before it stores a new identity; that may still fail afterwards."""
        return self.id is None

    @classmethod
    def from_kratos(cls, document: Mapping[str, Json]) -> Self:
        """Read `ctx.identity` of a `parse` hook; raises InvalidField."""
        known = None if document.get("id") == "" else fields.uuid(document, "id")
        traits = document.get("traits")
        return cls(
            id=known if isinstance(known, UUID) and known.int else None,
            schema_id=fields.text_or_none(document, "schema_id"),
            state=fields.text_or_none(document, "state"),
            external_id=fields.text_or_none(document, "external_id"),
            traits=MappingProxyType(traits if isinstance(traits, dict) else {}),
            metadata_public=document.get("metadata_public"),
            document=MappingProxyType(dict(document)),
        )


class IdentityChanges(TypedDict, total=False):
    """What to store instead. Each field replaces the whole of Kratos' own: give all traits."""

    traits: dict[str, Json]
    schema_id: str
    state: Literal["active", "inactive"]
    verifiable_addresses: list[Json]
    recovery_addresses: list[Json]
    metadata_public: Json
    metadata_admin: Json
    external_id: str


class RefuseIdentity(Exception):
    """The identity shall not be stored; the messages say why, where the person sees them."""

    def __init__(self, messages: Sequence[ErrorMessage]) -> None:
        """One message at least: "#/traits/email" shows it at that field, None above the form."""
        if not any(each.messages for each in messages):
            raise ValueError("a refusal without a message would reach nobody")
        super().__init__("the identity is refused")
        self.messages = messages

    @classmethod
    def at(cls, pointer: str | None, *messages: DetailedMessage) -> Self:
        """A refusal with messages at one place."""
        return cls([ErrorMessage(pointer, messages)])


class KratosIdentityParseHandler(KratosWebHookHandler):
    """Answers `parse` hooks of registration and settings; override `parse` to have a say.

    Nothing is recorded: an identity that is asked about may never be stored. With no changes the
    answer is 200 `{}`, which Kratos takes as well as 204 (recorded) and every hook can read. Any
    other failure, 500 or 503 too, refuses the person.
    """

    def __init__(self, config: KratosWebHookHandlerConfig, *, concurrency: int = 10) -> None:
        """Call `parse` on up to `concurrency` threads: it may block, but a person waits for it."""
        super().__init__(config)
        self._threads = anyio.CapacityLimiter(concurrency)

    def parse(self, identity: ParsedIdentity) -> IdentityChanges | None:  # noqa: ARG002
        """Return what to store instead, or None to change nothing; raise RefuseIdentity to refuse.

        May be called several times for one identity, from several threads.
        """
        return None

    async def handle_core(self, request: Request, body: bytes) -> Response:
        """Answer what `parse` says of the identity in the body."""
        hook = hook_label(first_headers(request))
        try:
            identity = ParsedIdentity.from_kratos(read_identity(body).identity)
        except InvalidField as error:
            return self.write_error_response(refuse(error, hook))
        try:
            changes = await anyio.to_thread.run_sync(self.parse, identity, limiter=self._threads)
        except RefuseIdentity as refusal:
            pointers = [each.instance_ptr for each in refusal.messages]
            _log.info("identity_refused", hook=hook, pointers=pointers)
            return self.write_error_response(refusal.messages)
        _log.info("identity_parsed", hook=hook, changed=sorted(changes or {}))
        return JSONResponse({"identity": changes} if changes else {})
