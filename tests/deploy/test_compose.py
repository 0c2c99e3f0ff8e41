import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

ROOT = Path(__file__).parents[2]
Compose = dict[str, Any]
FILES = ("docker-compose.yml", "deploy/compose.small.yml")
BOTH: dict[str, Compose] = {file: yaml.safe_load((ROOT / file).read_text()) for file in FILES}
COMPOSE, SMALL = BOTH.values()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def one_shots(compose: Compose) -> set[str]:
    return {
        name
        for service in compose["services"].values()
        for name, needed in service.get("depends_on", {}).items()
        if needed["condition"] == "service_completed_successfully"
    }


def staying(compose: Compose) -> list[str]:
    return sorted(compose["services"].keys() - one_shots(compose))


def ours(compose: Compose) -> list[str]:
    services = compose["services"]
    return sorted(
        name for name in services if services[name]["image"].startswith("kratos-identity-sync:")
    )


ONE_SHOTS, STAYING, OURS = one_shots(COMPOSE), staying(COMPOSE), ours(COMPOSE)


def for_each(names: Callable[[Compose], Iterable[str]]) -> pytest.MarkDecorator:
    """The same test for each of these services in both files."""
    cases = [
        pytest.param(compose, name, id=f"{file}-{name}")
        for file, compose in BOTH.items()
        for name in sorted(names(compose))
    ]
    return pytest.mark.parametrize(("compose", "name"), cases)


of_ours = for_each(ours)
of_all = for_each(lambda compose: compose["services"])
in_both = pytest.mark.parametrize("compose", BOTH.values(), ids=FILES)
MOUNTED = sorted(
    {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if volume.startswith(".")
    }
)
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^}]+\}")
UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "mb": 2**20}


def bytes_of(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", size).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as after `sh deploy/secrets.sh`."""
    folder = tmp_path_factory.mktemp("checkout")
    make_secrets(folder)
    return folder


def make_secrets(folder: Path) -> "subprocess.CompletedProcess[str]":
    for name in MOUNTED:
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    for name in (".env.example", "deploy/secrets.sh"):
        shutil.copy(ROOT / name, folder / name)
    return run_script(folder)


def run_script(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", str(folder / "deploy/secrets.sh")], capture_output=True, text=True, check=False
    )


def dotenv(folder: Path) -> dict[str, str]:
    return dict(
        line.split("=", 1)
        for line in (folder / ".env").read_text().splitlines()
        if line and not line.startswith("#")
    )


@pytest.fixture(scope="session")
def settings_of(checkout: Path) -> Callable[..., dict[str, str]]:
    """What a service is given, with the content of the secrets that are mounted."""

    def settings(name: str, compose: Compose = COMPOSE) -> dict[str, str]:
        service = compose["services"][name]
        mounted = {}
        for each in service.get("secrets", []):
            secret = {"source": each, "target": each} if isinstance(each, str) else each
            file = checkout / compose["secrets"][secret["source"]]["file"]
            mounted[f"/run/secrets/{secret['target']}"] = file.read_text().strip()
        return {
            variable.removesuffix("_FILE"): mounted.get(value, value)
            for variable, value in service.get("environment", {}).items()
        }

    return settings


@pytest.mark.parametrize("file", FILES)
def test_a_compose_file_follows_the_compose_specification(file: str) -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(ROOT / file)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout


def test_everything_that_the_service_is_made_of_is_there() -> None:
    assert {"migrate", "roles", "kratos-migrate"} == ONE_SHOTS
    assert {
        "api",
        "console",
        "kratos",
        "kratos-courier",
        "kratos-postgres",
        "mail",
        "postgres",
        "reconcile",
        "relay",
        "valkey",
        "worker",
    } == {*STAYING}
    assert OURS == ["api", "console", "migrate", "reconcile", "relay", "worker"]


def test_every_path_of_this_repository_that_compose_names_exists() -> None:
    mounted = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith((".", "/"))
    ]
    built = [service["build"] for service in SERVICES.values() if "build" in service]

    assert "./deploy/kratos" in mounted
    assert not [path for path in mounted + built if not (ROOT / path).exists()]
    assert all((ROOT / path / "Dockerfile").is_file() for path in built)


def test_what_is_mounted_from_here_cannot_be_written() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", [])]

    assert not [mount for mount in mounts if mount.startswith(".") and not mount.endswith(":ro")]


@in_both
def test_every_volume_that_is_named_is_declared(compose: Compose) -> None:
    named = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
        if not volume.startswith((".", "/"))
    }

    assert named == compose["volumes"].keys()


@of_ours
def test_every_command_that_a_service_runs_is_one_of_ours(compose: Compose, name: str) -> None:
    from kratos_sync.api.cli import main

    service = compose["services"][name]
    health = service.get("healthcheck", {}).get("test", [])
    calls = [service["command"], *([health[2:]] if health[1:2] == ["kratos-sync"] else [])]

    for called, *words in calls:
        command = main.get_command(click.Context(main), called)
        assert command
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


@of_ours
def test_a_service_is_given_every_setting_without_which_it_cannot_start(
    compose: Compose, name: str
) -> None:
    from kratos_sync.infrastructure.settings import Settings

    needed = {
        setting.upper() for setting, field in Settings.model_fields.items() if field.is_required()
    }

    service = compose["services"][name]
    if service["command"][0] in {"api", "all"}:
        needed.add("KRATOS_WEBHOOK_API_KEYS")
    if service["command"][0] in {"relay", "worker"}:
        needed.add("BROKER_URL")
    given = service["environment"]
    assert needed <= {variable.removesuffix("_FILE") for variable in given}


@of_ours
def test_a_service_can_use_what_its_secrets_say(
    compose: Compose,
    name: str,
    settings_of: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kratos_sync.infrastructure.settings import Settings

    for setting in Settings.model_fields:
        monkeypatch.delenv(setting.upper(), raising=False)
    for variable, value in settings_of(name, compose).items():
        monkeypatch.setenv(variable, "" if value.startswith("${") else value)

    keys = Settings(_env_file=None).kratos_webhook_api_keys  # type: ignore[call-arg]
    assert len(keys) == (compose["services"][name]["command"][0] in {"api", "all"})


@of_ours
def test_every_secret_that_a_service_names_is_mounted_and_no_other(
    compose: Compose, name: str
) -> None:
    service = compose["services"][name]
    mounted = [each if isinstance(each, str) else each["target"] for each in service["secrets"]]
    named = {
        value for variable, value in service["environment"].items() if variable.endswith("_FILE")
    }

    assert {f"/run/secrets/{each}" for each in mounted} == named


def test_secrets_are_random_and_for_nobody_else(checkout: Path) -> None:
    values = list(dotenv(checkout).values())

    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in values)
    assert len({*values}) == len(values)
    assert (checkout / ".env").stat().st_mode & 0o777 == 0o600
    assert (checkout / "secrets").stat().st_mode & 0o777 == 0o700
    # The containers' own user reads them.
    assert all(each.stat().st_mode & 0o777 == 0o644 for each in (checkout / "secrets").iterdir())
    declared = {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert declared == {f"./secrets/{each.name}" for each in (checkout / "secrets").iterdir()}
    assert declared >= {secret["file"] for secret in SMALL["secrets"].values()}
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_what_is_mounted_can_be_read_by_every_user_whatever_the_umask_was(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    mounted = [each for name in MOUNTED for each in (tmp_path / name, *(tmp_path / name).iterdir())]
    for each in mounted:
        each.chmod(0o700 if each.is_dir() else 0o600)

    assert run_script(tmp_path).returncode == 0
    assert {each.name: oct(each.stat().st_mode & 0o777) for each in mounted} == {
        each.name: "0o755" if each.is_dir() else "0o644" for each in mounted
    }


def test_what_stands_in_dotenv_is_kept_and_used(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    changed = {**dotenv(tmp_path), "VALKEY_PASSWORD": "mine", "KRATOS_WEBHOOK_API_KEYS": "a,b"}
    (tmp_path / ".env").write_text("".join(f"{k}={v}\n" for k, v in changed.items()))

    assert make_secrets(tmp_path).returncode == 0
    assert dotenv(tmp_path) == changed
    assert (tmp_path / "secrets/broker_url").read_text() == "redis://:mine@valkey:6379/0\n"
    assert (tmp_path / "secrets/webhook_api_keys").read_text() == "a,b\n"


@pytest.mark.parametrize("password", ["", "p@ss", "pass word", "$(id)"])
def test_a_password_that_does_not_go_into_a_url_is_refused(tmp_path: Path, password: str) -> None:
    make_secrets(tmp_path)
    changed = {**dotenv(tmp_path), "POSTGRES_PASSWORD": password}
    (tmp_path / ".env").write_text("".join(f"{k}={v}\n" for k, v in changed.items()))

    refused = make_secrets(tmp_path)

    assert refused.returncode == 1
    assert refused.stderr.startswith("POSTGRES_PASSWORD in .env: letters, digits and")


def test_kratos_starts_no_more_template_processes_than_its_limits_hold() -> None:
    assert int(SERVICES["kratos"]["environment"]["GOMAXPROCS"]) <= 5


@in_both
def test_one_service_builds_the_image_that_all_of_ours_run(compose: Compose) -> None:
    services = compose["services"]
    assert [name for name in services if "build" in services[name]] == ["migrate"]
    assert {services[name]["image"] for name in ours(compose)} == {SERVICES["api"]["image"]}
    run = [name for name in ours(compose) if name != "migrate"]
    assert all("migrate" in services[name]["depends_on"] for name in run)


@for_each(staying)
def test_a_service_that_stays_says_how_it_is_and_comes_back(compose: Compose, name: str) -> None:
    service = compose["services"][name]

    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert {"interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()
    assert "stop_grace_period" in service


@pytest.mark.parametrize("name", ["relay", "worker", "reconcile", "console"])
def test_what_serves_no_webhooks_is_asked_for_its_health_on_its_own_port(name: str) -> None:
    service = SERVICES[name]

    assert service["healthcheck"]["test"] == ["CMD", "kratos-sync", "healthcheck", name]
    assert int(service["environment"]["METRICS_PORT"])
    assert "METRICS_HOST" not in service["environment"]
    assert service["environment"]["METRICS_PORT"] not in str(service.get("ports"))


@for_each(one_shots)
def test_a_one_shot_is_tried_again_but_not_for_ever(compose: Compose, name: str) -> None:
    assert re.fullmatch(r"on-failure:\d", compose["services"][name]["restart"])


@of_all
def test_a_service_waits_until_the_one_it_needs_is_of_use(compose: Compose, name: str) -> None:
    for needed, how in compose["services"][name].get("depends_on", {}).items():
        is_one_shot = needed in one_shots(compose)
        done = "service_completed_successfully" if is_one_shot else "service_healthy"
        assert how == {"condition": done}


@of_all
def test_a_container_may_do_no_more_than_it_must(compose: Compose, name: str) -> None:
    service = compose["services"][name]

    assert int(str(service["user"]).split(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert bytes_of(service["mem_limit"]) <= 2**30
    assert service["pids_limit"] <= 200


@in_both
def test_only_loopback_is_published(compose: Compose) -> None:
    services = compose["services"]
    published = {name: s["ports"] for name, s in services.items() if "ports" in s}

    assert all(
        re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)
        for ports in published.values()
        for port in ports
    )
    assert not any(service.get("network_mode") for service in services.values())


def test_the_admin_api_the_databases_and_redis_are_not_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert {port.rsplit(":", 1)[1] for port in published} == {"8000", "4433", "8025", "8100"}


@of_all
def test_an_image_is_pinned_to_one_version_and_its_digest_unless_it_is_built_here(
    compose: Compose, name: str
) -> None:
    digest = "" if name in ours(compose) else "@sha256:[0-9a-f]{64}"
    pinned = r"[a-z/-]+:v?\d+\.\d+(\.\d+)?(-alpine)?" + digest
    assert re.fullmatch(pinned, compose["services"][name]["image"])


def networks_of(name: str) -> set[str]:
    return set(SERVICES[name]["networks"])


def neighbours_of(name: str) -> set[str]:
    """Whoever can be reached from there."""
    return {other for other in SERVICES if networks_of(other) & networks_of(name)} - {name}


@in_both
def test_every_service_is_on_networks_that_are_declared_and_on_no_other(compose: Compose) -> None:
    used = {network for service in compose["services"].values() for network in service["networks"]}

    assert used == compose["networks"].keys()
    assert "default" not in used


def test_the_mail_catcher_reaches_nobody_but_who_sends_the_mails() -> None:
    assert neighbours_of("mail") == {"kratos-courier"}
    assert SERVICES["kratos-courier"]["command"][:2] == ["courier", "watch"]
    assert SERVICES["kratos"]["environment"]["KRATOS_FLAGS"] == ""
    assert "kratos" not in neighbours_of("relay") | neighbours_of("migrate")


def test_databases_and_redis_are_on_networks_without_a_way_out() -> None:
    for name in ("postgres", "kratos-postgres", "valkey"):
        assert all(COMPOSE["networks"][each]["internal"] for each in networks_of(name))
    assert "kratos-postgres" not in neighbours_of("worker") | neighbours_of("api")
    assert "postgres" not in neighbours_of("kratos")


@in_both
def test_what_is_published_is_on_a_network_with_a_way_out(compose: Compose) -> None:
    for service in compose["services"].values():
        is_open = any(
            not (compose["networks"][each] or {}).get("internal") for each in service["networks"]
        )
        assert is_open >= ("ports" in service)


def test_a_service_shares_a_network_with_all_that_its_urls_lead_to(
    settings_of: Callable[..., dict[str, str]],
) -> None:
    # A relay has the settings of all, and asks no Kratos. Browsers are outside of all networks.
    asking = {"worker", "reconcile", "console", "kratos", "kratos-migrate", "kratos-courier"}
    for name in SERVICES:
        for variable, value in settings_of(name).items():
            if variable == "KRATOS_BROWSER_URL":
                continue
            if "://" in value and (name in asking or not variable.startswith("KRATOS_")):
                host = re.search(r"://(?:.*@)?([a-z-]+):\d+", value).group(1)  # type: ignore[union-attr]
                assert host in neighbours_of(name)
    assert "api" in neighbours_of("kratos")


@pytest.mark.parametrize("name", ["api", "console"])
def test_services_open_to_the_network_use_a_role_that_owns_nothing(
    checkout: Path, settings_of: Callable[..., dict[str, str]], name: str
) -> None:
    password = dotenv(checkout)[f"{name.upper()}_POSTGRES_PASSWORD"]

    url = settings_of(name)["DATABASE_URL"]
    assert url.startswith(f"postgresql://kratos_sync_{name}:{password}@")
    assert {"migrate", "roles"} <= SERVICES[name]["depends_on"].keys()
    assert "database_url" not in SERVICES[name]["secrets"]
    assert SERVICES["postgres"]["environment"]["POSTGRES_USER"] == "kratos_sync"
    assert "POSTGRES_PASSWORD:" not in str(SERVICES[name])


def test_the_script_of_roles_runs_once_the_tables_are_there() -> None:
    roles = SERVICES["roles"]

    assert "migrate" in roles["depends_on"]
    assert roles["environment"]["PGUSER"] == "kratos_sync"
    scripts = [word for word in roles["command"] if word.startswith("--file=")]
    mounted = roles["volumes"][0].split(":")[1]
    assert scripts == [f"--file={mounted}/roles.sql"]
    assert (ROOT / "deploy/postgres/roles.sql").exists()


def test_the_console_is_for_operators_who_sign_in_at_kratos_on_this_machine() -> None:
    console = SERVICES["console"]
    kratos = yaml.safe_load((ROOT / "deploy/kratos/kratos.yml").read_text())

    assert console["environment"]["CONSOLE_SIGN_IN"] == "kratos"
    assert console["ports"] == ["127.0.0.1:8100:8100"]
    # A cookie is for all ports of a host, and Kratos leads back only to what it is told of.
    assert console["environment"]["KRATOS_BROWSER_URL"].startswith("http://127.0.0.1:")
    assert "http://127.0.0.1:8100" in kratos["selfservice"]["allowed_return_urls"]
    assert "KRATOS_WEBHOOK_API_KEYS_FILE" not in console["environment"]


def test_redis_asks_for_a_password_that_only_those_who_use_it_have(
    checkout: Path, settings_of: Callable[..., dict[str, str]]
) -> None:
    password = "${VALKEY_PASSWORD:?set it in .env, see .env.example}"

    assert SERVICES["valkey"]["environment"]["REDISCLI_AUTH"] == password
    url = f"redis://:{dotenv(checkout)['VALKEY_PASSWORD']}@valkey:6379/0"
    given = {name: settings_of(name).get("BROKER_URL") for name in OURS}
    assert {name: each for name, each in given.items() if each is not None} == dict.fromkeys(
        ("relay", "worker", "console"), url
    )


@of_all
def test_no_secret_stands_in_the_compose_file(compose: Compose, name: str) -> None:
    environment = compose["services"][name].get("environment", {})
    secret = re.compile("PASSWORD|SECRET|KEY|TOKEN")

    for variable, value in environment.items():
        if variable.endswith("_FILE"):
            assert value.startswith("/run/secrets/")
        elif secret.search(variable):
            assert REQUIRED.fullmatch(value)
        for password in re.findall(r"://[^:/@]*:(.*)@", value):
            assert REQUIRED.fullmatch(password)


def test_compose_asks_for_what_the_example_names_and_the_example_gives_nothing_away() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    example = dict(
        line.split("=", 1)
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )

    assert set(REQUIRED.findall(text)) == example.keys()
    assert len(REQUIRED.findall(text)) == len(re.findall(r"(?<!\$)\$\{", text))
    assert set(example.values()) == {""}
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_redis_is_bounded_and_refuses_instead_of_forgetting() -> None:
    valkey = SERVICES["valkey"]
    command = valkey["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))

    assert options == {
        "--save": "",
        "--appendonly": "no",
        "--maxmemory": "128mb",
        "--maxmemory-policy": "noeviction",
        "--requirepass": "${VALKEY_PASSWORD:?set it in .env, see .env.example}",
    }
    assert bytes_of(options["--maxmemory"]) < bytes_of(valkey["mem_limit"])


def test_postgresql_18_keeps_its_files_in_the_volume() -> None:
    for name in ("postgres", "kratos-postgres"):
        assert SERVICES[name]["image"].startswith("postgres:18.")
        assert SERVICES[name]["volumes"] == [f"{name}:/var/lib/postgresql"]


def test_the_databases_are_asked_by_tcp_as_those_who_use_them_do() -> None:
    for name in ("postgres", "kratos-postgres"):
        assert "--host 127.0.0.1" in SERVICES[name]["healthcheck"]["test"][1]


def test_the_urls_that_a_service_is_given_lead_to_services(
    settings_of: Callable[..., dict[str, str]],
) -> None:
    given = [
        value
        for service in SERVICES
        for name, value in settings_of(service).items()
        if "://" in value and name != "KRATOS_BROWSER_URL"  # it leads browsers
    ]
    hosts = {re.search(r"://(?:.*@)?([a-z-]+):\d+", value).group(1) for value in given}  # type: ignore[union-attr]

    assert hosts == {"postgres", "kratos-postgres", "valkey", "kratos"}


@pytest.mark.parametrize("name", OURS)
def test_kratos_is_asked_inside_the_network_and_browsers_find_it_where_it_says(name: str) -> None:
    environment = SERVICES[name]["environment"]
    serve = yaml.safe_load((ROOT / "deploy/kratos/kratos.yml").read_text())["serve"]

    assert environment["KRATOS_BROWSER_URL"] == serve["public"]["base_url"]
    assert environment["KRATOS_PUBLIC_URL"] == "http://kratos:4433"


def test_the_small_deployment_is_postgresql_and_one_container() -> None:
    assert staying(SMALL) == ["kratos-sync", "postgres"]
    assert one_shots(SMALL) == {"migrate"}
    service = SMALL["services"]["kratos-sync"]
    assert service["command"][0] == "all"
    assert "BROKER_URL" not in str(SMALL)
    assert service["healthcheck"]["test"] == ["CMD", "kratos-sync", "healthcheck", "all"]
    assert int(service["environment"]["METRICS_PORT"])


def test_both_deployments_run_the_same_postgresql() -> None:
    of_both = [compose["services"]["postgres"] for compose in BOTH.values()]
    differs = {"networks", "command"}  # the small one has less memory
    first, second = ({k: v for k, v in each.items() if k not in differs} for each in of_both)
    assert first == second
    assert SMALL["networks"]["ledger"]["internal"]


def test_the_small_deployment_reaches_the_postgresql_of_its_url(
    settings_of: Callable[..., dict[str, str]],
) -> None:
    for name in ours(SMALL):
        assert "@postgres:5432/" in settings_of(name, SMALL)["DATABASE_URL"]
