"""The script by which somebody is given roles in the console, where Kratos runs in Compose."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kratos_sync.api.http.console.access import NoRole, Operator, Role
from kratos_sync.api.http.console.sign_in import ROLES_FIELD, roles_in_metadata
from kratos_sync.domain.session import KratosSession
from tests.waiting import DEADLINE_SECONDS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/kratos/console_roles.py"
ID = "e52e75c7-afbb-4316-a4ef-3977a428a2ca"
ADDRESS = "ada+1@example.org"


@contextmanager
def kratos(identity: dict[str, Any]) -> Iterator[str]:
    """An Admin API with one identity, which JSON Patch changes as in a real one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = parse_qs(urlsplit(self.path).query)
            assert urlsplit(self.path).path == "/admin/identities"
            self.answer([identity] if wanted == {"credentials_identifier": [ADDRESS]} else [])

        def do_PATCH(self) -> None:
            assert self.path == f"/admin/identities/{ID}"
            (step,) = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert (step["op"], step["path"]) == ("add", "/metadata_public")
            identity["metadata_public"] = step["value"]
            self.answer(identity)

        def answer(self, body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(DEADLINE_SECONDS)


def give(url: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run it as the command in its docstring does."""
    return subprocess.run(
        [sys.executable, "-", *words],
        input=SCRIPT.read_text(),
        env={"KRATOS_ADMIN_URL": url},
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE_SECONDS,
    )


def operator(identity: dict[str, Any]) -> Operator:
    session = KratosSession.from_kratos({"id": ID, "active": True, "identity": identity})
    return Operator.with_roles(ID, roles_in_metadata(session), second_factor=False)


def test_who_is_given_roles_has_them_in_the_console_and_keeps_other_metadata() -> None:
    ada = {"id": ID, "state": "active", "metadata_public": {"plan": "gold"}}
    with kratos(ada) as url:
        ran = give(url, ADDRESS, "operator", "privacy")
    assert (ran.returncode, ran.stdout) == (0, f"{ADDRESS} has now: operator, privacy.\n")
    assert ada["metadata_public"] == {"plan": "gold", ROLES_FIELD: ["operator", "privacy"]}
    found = operator(ada)
    assert found is not None
    assert found.roles == frozenset(Role)


def test_roles_are_taken_away_by_giving_none() -> None:
    ada = {"id": ID, "state": "active", "metadata_public": None}
    with kratos(ada) as url:
        assert give(url, ADDRESS, "viewer").returncode == 0
        assert operator(ada).roles == {Role.VIEWER}
        assert give(url, ADDRESS).returncode == 0
    with pytest.raises(NoRole):
        operator(ada)


def test_a_role_that_does_not_exist_and_an_unknown_identity_are_one_line() -> None:
    ada = {"id": ID, "state": "active", "metadata_public": None}
    with kratos(ada) as url:
        for words, line in (
            ([ADDRESS, "admin"], "Say what the identity signs in with, and its roles: "),
            ([], "Say what the identity signs in with, and its roles: "),
            (["grace@example.org", "viewer"], "Nobody signs in as grace@example.org."),
        ):
            ran = give(url, *words)
            assert ran.returncode == 1
            assert ran.stderr.startswith(line)
            assert ran.stderr.count("\n") == 1
    assert ada["metadata_public"] is None


def test_the_script_knows_the_roles_and_the_page_its_command() -> None:
    namespace: dict[str, Any] = {"__name__": "imported"}
    exec(SCRIPT.read_text(), namespace)  # ours
    assert set(namespace["ROLES"]) == {*Role}
    command = "docker compose exec -T worker python - you@example.org operator privacy"
    assert command in (ROOT / "docs/console.md").read_text()
