"""A real Kratos, started for a test: the actions of `living`, and the webhooks that they make."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.ports import free_ports
from tests.waiting import DEADLINE_SECONDS, until

DEPLOYED = Path(__file__).parents[2] / "deploy/kratos"
LOOPBACK = "127.0.0.1"
READY_SECONDS = 60
PASSWORD = "a-long-password-of-nobody-7319"
CODE = re.compile(r"\b\d{6}\b")


class RealKratos:
    """Kratos on loopback with a store in a folder, set up as this project deploys it.

    Messages are never sent: it runs as for development, where the Admin API shows them, codes and
    all.
    """

    def __init__(self, binary: str, folder: Path) -> None:
        self._calls: list[dict[str, Any]] = []
        self._due = 0
        self._binary = binary
        self._folder = folder
        self._public, self._admin = free_ports(2)
        self.admin_url = f"http://{LOOPBACK}:{self._admin}"
        self._people: dict[int, dict[str, Any]] = {}
        self._born = 0
        self._external_ids = count(1)
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        server = ThreadingHTTPServer((LOOPBACK, 0), self._handler())
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        self._undo.callback(thread.join)
        self._undo.callback(server.server_close)
        self._undo.callback(server.shutdown)
        # Without that header Kratos takes its caller for a browser.
        client = httpx.Client(
            headers={"Accept": "application/json"}, timeout=DEADLINE_SECONDS, trust_env=False
        )
        self._http = self._undo.enter_context(client)
        config = self._folder / "kratos.json"
        config.write_text(json.dumps(self._config(server.server_port)))
        store = {"DSN": f"sqlite://{self._folder}/kratos.sqlite?_fk=true&mode=rwc"}
        settings = {"PATH": os.environ["PATH"], "HOME": str(self._folder), **store}
        options = ["-c", str(config)]
        subprocess.run(
            [self._binary, "migrate", "sql", "-e", "--yes", *options],
            env=settings,
            check=True,
            timeout=5 * DEADLINE_SECONDS,
            capture_output=True,
        )
        log = self._undo.enter_context((self._folder / "kratos.log").open("wb"))
        process = subprocess.Popen(
            [self._binary, "serve", "--dev", *options], env=settings, stdout=log, stderr=log
        )
        self._undo.callback(process.wait, 30)
        self._undo.callback(process.terminate)
        until(self._is_ready, READY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def begin_anew(self) -> None:
        """Delete everybody, and forget every call."""
        while people := self._ask("GET", "/admin/identities").json():
            for each in people:
                self._ask("DELETE", f"/admin/identities/{each['id']}")
        self._people.clear()
        self.calls()
        self._calls.clear()
        self._due = 0

    def calls(self) -> list[dict[str, Any]]:
        """Every webhook's identity since then; Kratos calls some time after it has answered."""
        until(lambda: len(self._calls) >= self._due)
        return self._calls

    def does(self, action: str, number: int, value: int) -> None:
        """Let a person, or an administrator with a person, do something; it may be nothing."""
        if action in {"register", "create", "import"}:
            if number not in self._people:
                self._born += 1
                email = f"person{number}-{self._born}@example.org"
                self._people[number] = self._begin(action, self._traits(email, value), value)
        elif number in self._people:
            self._act(action, self._people[number], value, number)

    def _begin(self, action: str, traits: dict[str, Any], value: int) -> dict[str, Any]:
        if action == "register":
            made = self._flow("registration", method="password", password=PASSWORD, traits=traits)
            return {"id": made["identity"]["id"], "traits": traits, "token": made["session_token"]}
        config = {"password": {"config": {"password": PASSWORD}}}
        shape = {"schema_id": "person", "traits": traits, "credentials": config}
        more = {"external_id": self._external_id()} if action == "import" else {}
        document = {**shape, "metadata_admin": {"plan": value}, **more}
        made = self._ask("POST", "/admin/identities", document).json()
        return {"id": made["id"], "traits": traits, "token": None}

    def _act(self, action: str, person: dict[str, Any], value: int, number: int) -> None:
        now = self._ask("GET", f"/admin/identities/{person['id']}").json()
        patch: Mapping[str, Callable[[], list[dict[str, Any]]]] = {
            "patch state": lambda: [
                _put("/state", "inactive" if now["state"] == "active" else "active")
            ],
            "patch metadata": lambda: [_put("/metadata_public", {"n": value})],
            "patch traits": lambda: [_put("/traits", self._renamed(person, value))],
            "patch external id": lambda: [
                {"op": "remove", "path": "/external_id"}
                if now.get("external_id")
                else _put("/external_id", self._external_id())
            ],
        }
        if action in patch:
            self._ask("PATCH", f"/admin/identities/{person['id']}", patch[action]())
        elif action == "delete":
            self._ask("DELETE", f"/admin/identities/{person['id']}")
            del self._people[number]
        elif now["state"] == "active":  # nobody else can do anything
            self._live(action, person, value)

    def _live(self, action: str, person: dict[str, Any], value: int) -> None:
        if action in {"verify", "ask for a code"}:
            email = person["traits"]["email"]
            flow = self._flow("verification", method="code", email=email)
            if action == "verify":
                answer = self._http.post(
                    flow["ui"]["action"], json={"method": "code", "code": self._code(email)}
                )
                assert answer.status_code == 200, answer.status_code
                self._due += 1
            return
        said = {"identifier": person["traits"]["email"], "password": PASSWORD}
        made = self._flow("login", method="password", **said)
        if action in {"change settings", "change address"}:
            traits = self._renamed(person, value)
            if action == "change address":
                self._born += 1
                traits = {**traits, "email": f"moved-{self._born}@example.org"}
            token = {"X-Session-Token": made["session_token"]}
            self._flow("settings", token, method="profile", traits=traits)
            person["traits"] = traits

    def _flow(self, kind: str, headers: dict[str, str] | None = None, **said: Any) -> Any:
        url = f"http://{LOOPBACK}:{self._public}/self-service/{kind}/api"
        flow = self._http.get(url, headers=headers).json()
        answer = self._http.post(flow["ui"]["action"], json=said, headers=headers)
        assert answer.status_code == 200, (kind, answer.status_code)
        self._due += kind != "verification"
        return answer.json()

    def _code(self, email: str) -> str:
        query = f"/admin/courier/messages?recipient={email}"
        newest = self._ask("GET", query).json()[0]
        found = CODE.search(newest["body"])
        assert found is not None
        return found[0]

    def _ask(self, method: str, path: str, said: object = None) -> httpx.Response:
        answer = self._http.request(method, f"{self.admin_url}{path}", json=said)
        assert answer.is_success, (method, answer.status_code)
        return answer

    def _external_id(self) -> str:
        """One that nobody has: Kratos takes none twice."""
        return f"crm-{next(self._external_ids)}"

    def _traits(self, email: str, value: int) -> dict[str, Any]:
        number = 2**53 + 1 + value
        return {"email": email, "loyalty_number": number, "name": {"first": f"Ada {value}"}}

    def _renamed(self, person: dict[str, Any], value: int) -> dict[str, Any]:
        person["traits"] = self._traits(person["traits"]["email"], value)
        traits: dict[str, Any] = person["traits"]
        return traits

    def _config(self, receiver: int) -> dict[str, Any]:
        text = (DEPLOYED / "kratos.yml").read_text()
        text = text.replace("http://api:8000", f"http://{LOOPBACK}:{receiver}")
        text = text.replace("file:///etc/config/kratos/", f"{DEPLOYED.as_uri()}/")
        config: dict[str, Any] = yaml.safe_load(text.replace("@KRATOS_WEBHOOK_API_KEY@", "key"))
        for name, port in (("public", self._public), ("admin", self._admin)):
            url = f"http://{LOOPBACK}:{port}/"
            config["serve"][name] = {"base_url": url, "host": LOOPBACK, "port": port}
        config["hashers"]["bcrypt"]["cost"] = 4
        # There may be no network, and a password that cannot be looked up is refused.
        password = config["selfservice"]["methods"]["password"]
        password["config"] = {"haveibeenpwned_enabled": False}
        secret = "no-secret-at-all-in-a-test-00001"
        config["secrets"] = {"default": [secret], "cookie": [secret], "cipher": [secret]}
        return config

    def _is_ready(self) -> bool:
        try:
            return self._http.get(f"{self.admin_url}/admin/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        calls = self._calls

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                calls.append(json.loads(body)["identity"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Receiver


def _put(path: str, value: object) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}
