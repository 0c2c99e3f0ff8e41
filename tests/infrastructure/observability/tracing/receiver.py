"""A collector: receives spans by OTLP over HTTP, as real ones do, and keeps them."""

import gzip
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

LOOPBACK = "127.0.0.1"
KINDS = {number: name.removeprefix("SPAN_KIND_") for name, number in Span.SpanKind.items()}


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it came over the wire; ids are hex, and times nanoseconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str | None
    links: tuple[tuple[str, str], ...]
    start: int
    end: int
    is_error: bool
    attributes: Mapping[str, Any]
    process: str
    instance: str
    schema_url: str

    @property
    def traceparent(self) -> str:
        """Its context, sampled."""
        return f"00-{self.trace_id}-{self.span_id}-01"


class OtlpReceiver:
    """Listens on loopback while entered. It refuses everything while ``is_refusing``."""

    def __init__(self, port: int = 0) -> None:
        self.is_refusing = False
        self.bodies: list[bytes] = []
        self.tried = 0
        self._lock = threading.Lock()
        self._server = _Server((LOOPBACK, port), self)

    @property
    def endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans that came, in the order they began."""
        with self._lock:
            bodies = list(self.bodies)
        return sorted(
            (span for body in bodies for span in _spans(body)), key=lambda span: span.start
        )

    def named(self, name: str) -> list[ReceivedSpan]:
        """The spans with that name."""
        return [span for span in self.spans if span.name == name]

    def receive(self, path: str, body: bytes) -> bool:
        with self._lock:
            self.tried += 1
            if self.is_refusing or path != "/v1/traces":
                return False
            self.bodies.append(body)
            return True

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: "_Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        is_taken = self.server.receiver.receive(self.path, body)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if is_taken else 503)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named by its base
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], receiver: OtlpReceiver) -> None:
        self.receiver = receiver
        super().__init__(address, _Handler)


def _spans(body: bytes) -> Iterable[ReceivedSpan]:
    request = ExportTraceServiceRequest.FromString(body)
    for of_resource in request.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield ReceivedSpan(
                    span.name,
                    KINDS[span.kind],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex() or None,
                    tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    _attributes(span.attributes),
                    resource["service.name"].removeprefix("kratos-sync-"),
                    resource["service.instance.id"],
                    of_scope.schema_url,
                )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)
