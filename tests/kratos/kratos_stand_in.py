"""A program that is started like Kratos, and as strict: for what starts a real one.

It knows registrations by password, and identities in its Admin API.
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

PEOPLE: dict[str, dict[str, Any]] = {}


def serve(config: dict[str, Any]) -> None:
    public, admin = config["serve"]["public"], config["serve"]["admin"]
    password = config["selfservice"]["methods"]["password"]
    after = config["selfservice"]["flows"]["registration"]["after"]["password"]["hooks"]
    hook = after[0]["config"]["url"]

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, said: object = None) -> None:
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def said(self) -> Any:
            return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.startswith("/self-service/"):
                if self.headers["Accept"] != "application/json":
                    self.answer(406)
                    return
                self.answer(200, {"ui": {"action": f"{public['base_url']}{self.path[1:]}"}})
            elif self.path == "/admin/identities":
                self.answer(200, list(PEOPLE.values()))
            elif self.path.startswith("/admin/identities/"):
                self.answer(200, PEOPLE[self.path.rpartition("/")[2]])
            else:
                self.answer(200, {"status": "ok"})

        def do_POST(self) -> None:
            said = self.said()
            if self.path == "/admin/identities":
                self.store({**said, "state": "active"}, 201)
                return
            if password.get("config", {}).get("haveibeenpwned_enabled", True):
                self.answer(400, {"error": "the network is away"})
                return
            identity = {"id": str(uuid4()), "traits": said["traits"], "state": "active"}
            PEOPLE[identity["id"]] = identity
            call = json.dumps({"identity": identity}).encode()
            urlopen(Request(hook, call, {"Content-Type": "application/json"}), timeout=10).close()
            self.answer(200, {"identity": identity, "session_token": "token"})

        def do_PATCH(self) -> None:
            identity = dict(PEOPLE[self.path.rpartition("/")[2]])
            for step in self.said():
                name = step["path"][1:]
                identity.pop(name, None)
                if step["op"] == "add":
                    identity[name] = step["value"]
            self.store(identity, 200)

        def do_DELETE(self) -> None:
            del PEOPLE[self.path.rpartition("/")[2]]
            self.send_response(204)
            self.end_headers()

        def store(self, identity: dict[str, Any], status: int) -> None:
            identity.setdefault("id", str(uuid4()))
            taken = {
                each.get("external_id") for each in PEOPLE.values() if each["id"] != identity["id"]
            }
            if identity.get("external_id") in taken - {None}:
                self.answer(409)
                return
            PEOPLE[identity["id"]] = identity
            self.answer(status, identity)

    servers = [
        ThreadingHTTPServer(("127.0.0.1", each["port"]), Handler) for each in (public, admin)
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(json.loads(Path(sys.argv[sys.argv.index("-c") + 1]).read_text()))
