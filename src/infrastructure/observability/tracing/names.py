"""The names of all spans and attributes, from which the documentation is made.

Attributes are named by OpenTelemetry's semantic conventions of one version; those for messaging are
in development and may change with another. What the conventions do not have begins with
``kratos_sync.``.
"""

from typing import Final, NamedTuple

SCOPE: Final = "kratos_sync"
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"

HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
URL_SCHEME: Final = "url.scheme"
URL_PATH: Final = "url.path"
URL_FULL: Final = "url.full"
URL_TEMPLATE: Final = "url.template"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
MESSAGING_BATCH_MESSAGE_COUNT: Final = "messaging.batch.message_count"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"

OPERATION: Final = "kratos_sync.operation"
EVENT_NAME: Final = "kratos_sync.event.name"
ATTEMPT: Final = "kratos_sync.attempt"
SUCCEEDED: Final = "kratos_sync.deliveries.succeeded"
FAILED: Final = "kratos_sync.deliveries.failed"
POSTPONED: Final = "kratos_sync.deliveries.postponed"
DEAD: Final = "kratos_sync.deliveries.dead"
UNPROCESSED: Final = "kratos_sync.deliveries.unprocessed"

EVENTS_TABLE: Final = "kratos_sync.events"
RECORD: Final = f"record {EVENTS_TABLE}"


class Attribute(NamedTuple):
    """An attribute of a span, and what it says."""

    name: str
    meaning: str


class SpanKind(NamedTuple):
    """A kind of span: its name, where it begins, and its attributes."""

    name: str
    kind: str
    process: str
    meaning: str
    parent: str
    attributes: tuple[Attribute, ...]


_STATUS: Final = Attribute(HTTP_RESPONSE_STATUS_CODE, "the answer's status")
_METHOD: Final = Attribute(HTTP_REQUEST_METHOD, "the request's method")
_SYSTEM: Final = Attribute(MESSAGING_SYSTEM, "`kratos_sync`")
_EVENTS: Final = Attribute(MESSAGING_BATCH_MESSAGE_COUNT, "how many events, if several")

SPANS: Final = (
    SpanKind(
        "POST /kratos/…",
        "SERVER",
        "api",
        "a call of Kratos, until it is answered",
        "Kratos' span, by `traceparent`",
        (
            _METHOD,
            Attribute(HTTP_ROUTE, "the path of the webhook"),
            Attribute(URL_PATH, "the same"),
            Attribute(URL_SCHEME, "`http` or `https`"),
            _STATUS,
            Attribute(ERROR_TYPE, "the status from 500 on, or an error's type"),
        ),
    ),
    SpanKind(
        RECORD,
        "PRODUCER",
        "api",
        "a commit of events that calls brought",
        "the call; of several calls, links to those that are sampled",
        (
            _SYSTEM,
            Attribute(MESSAGING_OPERATION_NAME, "`record`"),
            Attribute(MESSAGING_OPERATION_TYPE, "`send`"),
            Attribute(MESSAGING_DESTINATION_NAME, f"`{EVENTS_TABLE}`"),
            _EVENTS,
            Attribute(ERROR_TYPE, "the type of the error, if it failed"),
        ),
    ),
    SpanKind(
        "process CONSUMER",
        "CONSUMER",
        "worker",
        "a try of a batch: from its start to its commit, and the recording of a failure",
        "what recorded the event, at its first attempt; else a link to each such context that is"
        " sampled",
        (
            _SYSTEM,
            Attribute(MESSAGING_OPERATION_NAME, "`process`"),
            Attribute(MESSAGING_OPERATION_TYPE, "`process`"),
            Attribute(MESSAGING_DESTINATION_NAME, "the consumer"),
            _EVENTS,
            Attribute(MESSAGING_MESSAGE_ID, "the event's id, if it is one"),
            Attribute(EVENT_NAME, "the event's name, if it is one"),
            Attribute(ATTEMPT, "the number of the attempt, if it is one event"),
            Attribute(SUCCEEDED, "how many deliveries succeeded"),
            Attribute(FAILED, "how many failed, and are retried"),
            Attribute(POSTPONED, "how many the consumer postponed"),
            Attribute(DEAD, "how many became dead letters"),
            Attribute(UNPROCESSED, "how many are as before, and come again"),
            Attribute(ERROR_TYPE, "the type of the first error"),
        ),
    ),
    SpanKind(
        "METHOD /admin/identities…",
        "CLIENT",
        "worker, reconcile",
        "a request to Kratos' Admin API, each retry of its own; it carries `traceparent`",
        "the batch that makes it",
        (
            Attribute(OPERATION, "`page`, `find`, `find_all` or `delete`"),
            _METHOD,
            Attribute(URL_TEMPLATE, "the path, with `{id}` in place of an id"),
            Attribute(URL_FULL, "the URL likewise, without a query or a password"),
            Attribute(SERVER_ADDRESS, "Kratos' host"),
            Attribute(SERVER_PORT, "its port, if the URL has one"),
            _STATUS,
            Attribute(ERROR_TYPE, "the status from 400 on (not 404), or an error's type"),
        ),
    ),
)
