"""Plays `kratos-sync migrate`, `api`, `relay`, `worker` and `console`, without their work."""

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from kratos_sync.infrastructure.worker.child_processes import end_with_parent

LINK = "of-a-stand-in"
SHOWN = ("DATABASE_", "BROKER_", "KRATOS_ADMIN_", "METRICS_", "CONSOLE_OIDC_")


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main(name: str, *options: str) -> None:
    end_with_parent(os.environ)
    for setting in os.environ:
        if setting.upper().startswith(SHOWN):
            print(f"{setting}={os.environ[setting]}")
    played = os.environ.get("STAND_IN")
    if played == f"{name} dies":
        sys.exit(7)
    if played == "unstoppable" and name == "relay":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--port" in options:
        port = int(options[options.index("--port") + 1])
        if name == "console":
            print(f"Sign in, once: http://127.0.0.1:{port}/sign-in/{LINK}")
        HTTPServer(("127.0.0.1", port), Ready).serve_forever()
    if name != "migrate":
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
