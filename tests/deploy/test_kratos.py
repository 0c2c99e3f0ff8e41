import gzip
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rjsonnet
import yaml
from jsonschema import Draft7Validator
from jsonschema.validators import validator_for

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kratos"
KRATOS = yaml.safe_load((FOLDER / "kratos.yml").read_text())
FLOWS = KRATOS["selfservice"]["flows"]
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SCHEMA = json.loads((FOLDER / "identity.schema.json").read_text())
MAPPER = (FOLDER / "identity.mapper.jsonnet").read_text()
RECORDINGS = ROOT / "tests/recordings"

METHODS = {
    "registration": ["password", "webauthn", "passkey", "oidc", "code"],
    "login": ["password", "webauthn", "passkey", "oidc", "code", "totp", "lookup_secret"],
    "settings": ["password", "totp", "oidc", "webauthn", "passkey", "lookup_secret", "profile"],
}
WITHOUT_METHODS = ["verification", "recovery"]
PLACES = [
    *((flow, method) for flow, methods in METHODS.items() for method in [None, *methods]),
    *((flow, None) for flow in WITHOUT_METHODS),
]


def hooks_after(flow: str, method: str | None) -> list[dict[str, Any]]:
    after = FLOWS[flow]["after"]
    hooks: list[dict[str, Any]] = (after if method is None else after[method])["hooks"]
    return hooks


def lists_of_hooks(tree: Any) -> Iterator[list[dict[str, Any]]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "hooks":
                yield value
            else:
                yield from lists_of_hooks(value)


@pytest.mark.parametrize(("flow", "method"), PLACES)
def test_every_flow_and_method_calls_us_once(flow: str, method: str | None) -> None:
    hooks = [hook for hook in hooks_after(flow, method) if hook["hook"] == "web_hook"]

    (config,) = [hook["config"] for hook in hooks]
    assert config == {
        "url": "http://api:8000/kratos/sync-identity",
        "method": "POST",
        "headers": {"X-Kratos-Hook": ".".join(filter(None, (flow, "after", method)))},
        "auth": {
            "type": "api_key",
            "config": {
                "in": "header",
                "name": "X-Api-Key",
                "value": "@KRATOS_WEBHOOK_API_KEY@",
            },
        },
        "body": "file:///etc/config/kratos/identity.mapper.jsonnet",
        "response": {"ignore": True},
    }


def test_there_is_no_other_hook_than_these_and_the_session_after_a_registration() -> None:
    lists = list(lists_of_hooks(FLOWS))

    assert len(lists) == len(PLACES)
    assert {hook["hook"] for hooks in lists for hook in hooks} == {"web_hook", "session"}


@pytest.mark.parametrize("method", METHODS["registration"])
def test_a_registration_logs_in_last(method: str) -> None:
    assert [hook["hook"] for hook in hooks_after("registration", method)] == ["web_hook", "session"]


@pytest.mark.parametrize("flow", ["login", "settings", *WITHOUT_METHODS])
def test_only_a_registration_needs_to_log_in(flow: str) -> None:
    assert all(
        hook["hook"] == "web_hook" for hooks in lists_of_hooks(FLOWS[flow]) for hook in hooks
    )


def test_no_hook_holds_a_person_up() -> None:
    text = (FOLDER / "kratos.yml").read_text()

    assert "parse" not in text
    assert "can_interrupt" not in text


def test_the_recorded_calls_come_from_hooks_that_are_here() -> None:
    labels = {
        hook["config"]["headers"]["X-Kratos-Hook"]
        for hooks in lists_of_hooks(FLOWS)
        for hook in hooks
        if hook["hook"] == "web_hook"
    }
    recorded = {
        json.loads(line)["headers"]["X-Kratos-Hook"]
        for line in (RECORDINGS / "webhooks.jsonl").read_text().splitlines()
    }

    assert recorded <= labels


def test_the_url_leads_to_the_port_that_the_api_listens_on() -> None:
    command = SERVICES["api"]["command"]

    assert command[command.index("--port") + 1] == "8000"
    assert command[command.index("--host") + 1] == "0.0.0.0"


def test_the_configuration_is_of_the_version_that_compose_runs() -> None:
    image, _, _ = SERVICES["kratos"]["image"].partition("@")
    assert image == f"oryd/kratos:{KRATOS['version']}"
    assert SERVICES["kratos-migrate"]["image"] == SERVICES["kratos"]["image"]


def test_every_file_that_kratos_reads_is_here() -> None:
    (mount,) = SERVICES["kratos"]["volumes"]
    read = set(re.findall(r"/etc/config/kratos/([\w.]+)", (FOLDER / "kratos.yml").read_text()))
    started = {
        Path(word).name for word in SERVICES["kratos"]["entrypoint"] if word.startswith("/etc")
    }

    assert mount == "./deploy/kratos:/etc/config/kratos:ro"
    assert read == {"identity.schema.json", "identity.mapper.jsonnet"}
    assert started == {"serve.sh", "kratos.yml"}
    assert all((FOLDER / name).is_file() for name in read | started)


def test_the_default_schema_is_one_of_the_schemas() -> None:
    identity = KRATOS["identity"]

    assert [schema["id"] for schema in identity["schemas"]] == [identity["default_schema_id"]]


def test_kratos_holds_no_secret_of_its_own_in_the_file() -> None:
    assert not {"dsn", "secrets"} & KRATOS.keys()
    assert {"DSN", "SECRETS_DEFAULT", "SECRETS_COOKIE", "SECRETS_CIPHER"} <= (
        SERVICES["kratos"]["environment"].keys()
    )


def test_mails_go_to_the_service_that_catches_them() -> None:
    assert KRATOS["courier"]["smtp"]["connection_uri"].startswith("smtp://mail:1025/")
    assert "mail" in SERVICES


def test_the_identity_schema_is_a_json_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)

    assert validator_for(SCHEMA, default=None) is Draft7Validator


def recorded_identities() -> Iterator[dict[str, Any]]:
    for line in (RECORDINGS / "webhooks.jsonl").read_text().splitlines():
        yield json.loads(line)["body"]["identity"]
    lives = json.loads(gzip.decompress((RECORDINGS / "lives.json.gz").read_bytes()))
    yield from (call["body"]["identity"] for call in lives["calls"])


def test_the_identity_schema_accepts_everybody_who_was_recorded() -> None:
    validator = Draft7Validator(SCHEMA)
    seen = list(recorded_identities())

    assert len(seen) > 800
    assert not [error.message for identity in seen for error in validator.iter_errors(identity)]


@pytest.mark.parametrize(
    "traits",
    [
        {"phone": "+442079460958"},
        {"email": "ada@example.org", "role": "admin"},
        {"email": "ada@example.org", "newsletter": "yes"},
        {"email": "ada@example.org", "name": "Ada"},
    ],
)
def test_the_identity_schema_refuses_what_nobody_may_say_of_themselves(
    traits: dict[str, Any],
) -> None:
    assert not Draft7Validator(SCHEMA).is_valid({"traits": traits})


def test_the_e_mail_identifies_a_person_in_every_first_factor_that_is_on() -> None:
    email = SCHEMA["properties"]["traits"]["properties"]["email"]["ory.sh/kratos"]
    methods = KRATOS["selfservice"]["methods"]

    for method in ("password", "code"):
        assert methods[method]["enabled"] is True
        assert email["credentials"][method]["identifier"] is True
    assert email["verification"] == email["recovery"] == {"via": "email"}


def test_the_mapper_sends_the_identity_and_nothing_else() -> None:
    code = " ".join(re.sub(r"//.*", "", MAPPER).split())

    assert code == (
        "function(ctx) { identity: if std.objectHas(ctx, 'identity') then ctx.identity else null, }"
    )


@pytest.mark.parametrize(
    ("context", "sent"),
    [
        (
            {
                "identity": {"id": "1", "traits": {}},
                "request_cookies": {"session": "…"},
                "flow": {},
            },
            {"identity": {"id": "1", "traits": {}}},
        ),
        ({"flow": {}}, {"identity": None}),
    ],
)
def test_the_mapper_can_be_run_on_any_context(
    context: dict[str, Any], sent: dict[str, Any]
) -> None:
    rendered = rjsonnet.evaluate_snippet("mapper", MAPPER, tla_codes={"ctx": json.dumps(context)})

    assert json.loads(rendered) == sent


@pytest.fixture
def serve(tmp_path: Path) -> Any:
    """Runs serve.sh with a kratos that only says how it was called."""
    stub = tmp_path / "bin/kratos"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\necho "$@"\necho "${KRATOS_WEBHOOK_API_KEYS-none}"\n')
    stub.chmod(0o755)

    def run(source: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(FOLDER / "serve.sh"), str(source), str(tmp_path / "kratos.yml")],
            env={"PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_kratos_starts_with_the_first_key_in_a_file_that_only_it_may_read(
    serve: Any, tmp_path: Path
) -> None:
    started = serve(FOLDER / "kratos.yml", KRATOS_WEBHOOK_API_KEYS="n3w_~.-,old")

    target = tmp_path / "kratos.yml"
    assert started.stdout.splitlines() == [f"serve --config {target} --watch-courier", "none"]
    assert target.stat().st_mode & 0o777 == 0o600
    written = yaml.safe_load(target.read_text())["selfservice"]["flows"]
    assert {
        hook["config"]["auth"]["config"]["value"]
        for hooks in lists_of_hooks(written)
        for hook in hooks
        if hook["hook"] == "web_hook"
    } == {"n3w_~.-"}


def test_a_key_of_digits_stays_a_text(serve: Any, tmp_path: Path) -> None:
    serve(FOLDER / "kratos.yml", KRATOS_WEBHOOK_API_KEYS="0123")

    written = yaml.safe_load((tmp_path / "kratos.yml").read_text())
    (hook,) = written["selfservice"]["flows"]["recovery"]["after"]["hooks"]
    assert hook["config"]["auth"]["config"]["value"] == "0123"


@pytest.mark.parametrize("keys", ["", ",", "a b", 'a"', "a/b", "a&b", "a\nb", "a\\b", "a:#b"])
def test_a_key_that_would_not_survive_the_file_stops_kratos(
    serve: Any, tmp_path: Path, keys: str
) -> None:
    refused = serve(FOLDER / "kratos.yml", KRATOS_WEBHOOK_API_KEYS=keys)

    assert refused.returncode != 0
    assert "KRATOS_WEBHOOK_API_KEYS" in refused.stderr
    assert not (tmp_path / "kratos.yml").exists()


def test_a_configuration_without_a_place_for_the_key_stops_kratos(
    serve: Any, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.yml"
    bare.write_text("version: v26.2.0\n")

    refused = serve(bare, KRATOS_WEBHOOK_API_KEYS="key")

    assert refused.returncode == 1
    assert "to put the key in" in refused.stderr


def test_what_serve_writes_stays_in_memory() -> None:
    source, target = SERVICES["kratos"]["entrypoint"][-2:]

    assert source == "/etc/config/kratos/kratos.yml"
    assert any(mount.startswith(f"{Path(target).parent}:") for mount in SERVICES["kratos"]["tmpfs"])
