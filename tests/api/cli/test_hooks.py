import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kratos_sync.api.http.app import SYNC
from kratos_sync.application.kratos_config.hooks import SYNC_PATH
from kratos_sync.application.kratos_config.templates import MAPPER
from tests.api.cli.invoking import kratos_sync

DEPLOYED = Path(__file__).parents[3] / "deploy/kratos/kratos.yml"
AS_DEPLOYED = (
    *("--url", "http://api:8000", "--session"),
    *("--mapper", "file:///etc/config/kratos/identity.mapper.jsonnet"),
)
KEYS = "KRATOS_WEBHOOK_API_KEYS"


def printed(*options: str, **settings: str | None) -> Any:
    result = kratos_sync("hooks", *options, **settings)
    assert result.exit_code == 0, result.output
    return yaml.safe_load(result.stdout)


def test_what_is_printed_is_what_compose_runs() -> None:
    flows = yaml.safe_load(DEPLOYED.read_text())["selfservice"]["flows"]
    expected = {
        name: {"after": flow["after"]}
        for name, flow in flows.items()
        if name not in ("error", "logout")
    }

    assert printed(*AS_DEPLOYED) == {"selfservice": {"flows": expected}}


def test_with_and_without_an_anchor_and_as_json_it_is_the_same() -> None:
    with_anchor = kratos_sync("hooks").stdout
    plain = kratos_sync("hooks", "--plain").stdout

    assert with_anchor.count("&webhook") == 1
    assert not set("&*") & set(plain)
    assert yaml.safe_load(plain) == yaml.safe_load(with_anchor)
    assert json.loads(kratos_sync("hooks", "--json").stdout) == yaml.safe_load(with_anchor)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--plain",),
        ("--json",),
        AS_DEPLOYED,
        ("--methods", "password, code", "--session"),
        ("--methods", ""),
        ("--mapper", "file:///etc/mapper.jsonnet"),
    ],
    ids=" ".join,
)
def test_what_is_printed_passes_the_check_without_a_finding(options: tuple[str, ...]) -> None:
    result = kratos_sync("check", "-", "--json", typed=kratos_sync("hooks", *options).stdout)

    assert result.exit_code == 0
    assert json.loads(result.stdout)["findings"] == []


def test_methods_are_chosen() -> None:
    flows = printed("--methods", "password,totp")["selfservice"]["flows"]

    assert set(flows["registration"]["after"]) == {"hooks", "password"}
    assert set(flows["login"]["after"]) == {"hooks", "password", "totp"}
    assert set(flows["recovery"]["after"]) == {"hooks"}


def test_by_default_a_registration_does_not_log_in() -> None:
    assert "hook: session" not in kratos_sync("hooks").stdout


def test_the_key_is_a_placeholder_that_serve_sh_finds() -> None:
    output = kratos_sync("hooks", **{KEYS: "s3cr3t,old"}).output

    assert '"@KRATOS_WEBHOOK_API_KEY@"' in output
    assert "s3cr3t" not in output


def test_the_key_is_printed_on_request() -> None:
    flows = printed("--key-from-env", **{KEYS: "0123,old"})["selfservice"]["flows"]
    (hook,) = flows["recovery"]["after"]["hooks"]

    assert hook["config"]["auth"]["config"]["value"] == "0123"


def test_the_key_may_be_in_a_file_that_the_environment_names(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("\n0123\nold\n")

    flows = printed("--key-from-env", **{f"{KEYS}_FILE": str(keys)})["selfservice"]["flows"]
    missing = kratos_sync("hooks", "--key-from-env", **{f"{KEYS}_FILE": str(tmp_path / "none")})

    assert flows["login"]["after"]["hooks"][0]["config"]["auth"]["config"]["value"] == "0123"
    assert (missing.exit_code, f"{KEYS}_FILE names cannot be read" in missing.stderr) == (2, True)


def test_asking_for_a_key_that_is_not_set_is_wrong_use() -> None:
    result = kratos_sync("hooks", "--key-from-env", **{KEYS: " , "})

    assert result.exit_code == 2
    assert KEYS in result.stderr


def test_the_header_is_the_settings() -> None:
    flows = printed(KRATOS_WEBHOOK_API_KEY_HEADER="X-Other")["selfservice"]["flows"]
    (hook,) = flows["recovery"]["after"]["hooks"]

    assert hook["config"]["auth"]["config"]["name"] == "X-Other"


@pytest.mark.parametrize("header", ["Content-Type", "X Other", "X-Other: a"])
def test_a_header_that_no_key_can_be_in_is_wrong_use(header: str) -> None:
    result = kratos_sync("hooks", KRATOS_WEBHOOK_API_KEY_HEADER=header)

    assert result.exit_code == 2
    assert "KRATOS_WEBHOOK_API_KEY_HEADER" in result.stderr


def test_a_mapper_in_a_file_is_shown_to_be_put_there() -> None:
    output = kratos_sync("hooks", "--mapper", "file:///etc/mapper.jsonnet").stdout
    comments = [
        line.removeprefix("#   ") for line in output.splitlines() if line.startswith("#   ")
    ]

    assert "# /etc/mapper.jsonnet holds:" in output
    assert comments == MAPPER.splitlines()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://sync.example.org", "https://sync.example.org/kratos/sync-identity"),
        ("https://sync.example.org/", "https://sync.example.org/kratos/sync-identity"),
        ("https://sync.example.org/moved", "https://sync.example.org/moved"),
    ],
)
def test_an_address_without_a_path_gets_ours(given: str, url: str) -> None:
    flows = printed("--url", given)["selfservice"]["flows"]
    (hook,) = flows["recovery"]["after"]["hooks"]

    assert hook["config"]["url"] == url


def test_an_address_that_check_would_not_know_is_pointed_out() -> None:
    assert "--url" in kratos_sync("hooks", "--url", "https://sync.example.org/moved").stdout
    assert "--url" not in kratos_sync("hooks").stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--url", "sync.example.org"),
        ("--url", "ftp://sync.example.org"),
        ("--url", "http://a b/c"),
        ("--url", "http://[::1/c"),
        ("--methods", "password,link"),
        ("--mapper", "mapper.jsonnet"),
        ("--mapper", "file://relative"),
        ("--mapper", "https://example.org/mapper"),
    ],
    ids=" ".join,
)
def test_what_kratos_could_not_use_is_wrong_use(options: tuple[str, ...]) -> None:
    assert kratos_sync("hooks", *options).exit_code == 2


def test_the_path_is_the_one_that_we_answer_at() -> None:
    assert SYNC_PATH == SYNC
