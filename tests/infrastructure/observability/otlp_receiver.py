"""A receiver of metrics by OTLP, in this process."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric


class OtlpReceiver:
    """Keeps what it receives, in order; answers with ``status``."""

    def __init__(self) -> None:
        self.received: list[ExportMetricsServiceRequest] = []
        self.raw: list[bytes] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.raw.append(body)
                receiver.received.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that came last, by name."""
        (of_resource,) = self.received[-1].resource_metrics
        return {each.name: each for scope in of_resource.scope_metrics for each in scope.metrics}

    @property
    def resource(self) -> dict[str, str]:
        """What the last were said to be of."""
        (of_resource,) = self.received[-1].resource_metrics
        return {each.key: each.value.string_value for each in of_resource.resource.attributes}


@contextmanager
def receiving() -> Iterator[OtlpReceiver]:
    """Run a receiver."""
    receiver = OtlpReceiver()
    with receiver.running():
        yield receiver
