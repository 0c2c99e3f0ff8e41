"""`kratos-sync dev`: everything on this machine, in one terminal."""

import http.client
import json
import os
import re
import secrets
import shlex
import socket
import sysconfig
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

import click

from kratos_sync.api.cli.output import echo, harmless
from kratos_sync.infrastructure.worker.child_processes import ChildProcesses
from kratos_sync.infrastructure.worker.shutdown import ShutdownRequested, ShutdownSignals

READY_SECONDS: Final = 60.0
MIGRATE_SECONDS: Final = 300.0
PORT_SECONDS: Final = 4.0
POLL_SECONDS: Final = 0.1
OWN_URLS: Final = {"DATABASE_URL", "BROKER_URL"}
EXPORTED_BY: Final = "KRATOS_SYNC_DEV"
"""The variable that says which directory the other exported variables are about."""
SERVICE: Final = ("api", "relay", "worker")
ALL: Final = "all"
PARTS: Final = ("api", "delivery")
"""The processes of `kratos-sync all`."""
IN_MEMORY: Final = "memory://"
CONSOLE: Final = "console"
CONSOLE_HOST: Final = "127.0.0.1"
COLOURS: Final = {
    "migrate": "cyan",
    ALL: "yellow",
    "api": "yellow",
    "relay": "green",
    "worker": "magenta",
    CONSOLE: "blue",
}
READY_PATHS: Final = {"api": "/health/ready", CONSOLE: "/sign-in"}
LINK: Final = re.compile(rb"http\S+/sign-in/\S+")
FOLDER: Final = click.Path(path_type=Path, file_okay=False)
PORT: Final = click.IntRange(1, 65535)


class Address(NamedTuple):
    """Where a process listens."""

    host: str
    port: int

    @property
    def reachable(self) -> str:
        """The host by which it is found from here."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104

    @property
    def url(self) -> str:
        """The URL of the process, from here."""
        host = self.reachable
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


@click.command()
@click.option("--data", type=FOLDER, default=".data", show_default=True, help="Where data is kept.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the API listens.")
@click.option("--port", type=PORT, default=8000, show_default=True)
@click.option(
    "--console-port", type=PORT, default=8100, show_default=True, help="Where the console listens."
)
@click.option("--no-broker", is_flag=True, help="Start no Valkey, and run `kratos-sync all`.")
def dev(data: Path, host: str, port: int, console_port: int, no_broker: bool) -> None:
    """Run everything on this machine, in one terminal, until Ctrl-C.

    Starts a PostgreSQL and a Valkey of its own (unless DATABASE_URL and BROKER_URL name others),
    brings the tables up to date, and runs API, relay, worker and, with the extra `console`, the
    console on 127.0.0.1.
    """
    from kratos_sync.api.cli.console import INSTALL, is_installed
    from kratos_sync.infrastructure.embedded import EmbeddedServerError, owned

    addresses, console = {"api": Address(host, port)}, f"not installed: {INSTALL}"
    if is_installed():
        if console_port == port:
            raise click.UsageError("--port and --console-port are the same: choose another.")
        addresses[CONSOLE] = Address(CONSOLE_HOST, console_port)
    exports, output = data / "env", Output()
    try:
        with ShutdownSignals() as shutdown, ExitStack() as undo:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            (data / ".gitignore").write_text("*\n")
            undo.enter_context(owned(data, "kratos-sync dev"))
            # If it exists, the last dev was killed: its children may hold ports for a moment.
            seconds = PORT_SECONDS if exports.exists() else 0
            for name, address in addresses.items():
                _require_free(name, address, seconds)
            environment = _environment(data, undo, no_broker=no_broker)
            is_shared = environment["BROKER_URL"] != IN_MEMORY
            consumers = _consumers(environment)
            undo.callback(exports.unlink, missing_ok=True)
            names = ("DATABASE_URL", "BROKER_URL", "KRATOS_WEBHOOK_API_KEYS", EXPORTED_BY)
            environment[EXPORTED_BY] = str(data.absolute())
            lines = [f"export {name}={shlex.quote(environment[name])}\n" for name in names]
            _write_private(exports, "".join(lines))
            children = ChildProcesses(environment, shutdown.aborted.is_set, output.show)
            undo.enter_context(children)
            processes = [*(SERVICE if is_shared else PARTS), *addresses]
            ports = ports_of(environment.get("METRICS_PORT", ""), processes)
            try:
                _migrate(children, shutdown)
                _serve(children, shutdown, addresses, ports, SERVICE if is_shared else [ALL])
                if CONSOLE in addresses:
                    link, again = _link(output, children, shutdown), addresses[CONSOLE].url
                    console = f"{link} (once, within 15 minutes; for another link open {again})"
                url = addresses["api"].url
                _say(banner(environment, exports, url, consumers, ports=ports, console=console))
                while True:
                    _pause(children, shutdown)
            except ShutdownRequested:
                _say("Stopping. Ctrl-C again stops at once.")
    except (EmbeddedServerError, OSError) as error:
        raise click.ClickException(str(error)) from error


def ports_of(metrics_port: str, processes: Iterable[str]) -> dict[str, str]:
    """Return the METRICS_PORT of each process: the port itself for the api, and those after it."""
    if not metrics_port.strip().isdecimal():
        return {}
    names = dict.fromkeys(processes)
    return {name: str(int(metrics_port) + number) for number, name in enumerate(names)}


def program() -> str:
    """Return the path of `kratos-sync` in the environment that runs it now."""
    return str(Path(sysconfig.get_path("scripts"), "kratos-sync"))


def kept_key(data: Path) -> str:
    """Return the webhook key of this directory, generated the first time."""
    file = data / "webhook-key"
    if not file.exists() or not file.read_text().strip():
        _write_private(file, secrets.token_urlsafe(32) + "\n")
    return file.read_text().strip()


def show_line(name: str, line: bytes) -> None:
    """Print a line of a child's output after its name."""
    text = harmless(line.decode(errors="replace").rstrip("\r\n"))
    with suppress(OSError):  # the terminal may be gone
        click.echo(click.style(f"{name:>7} | ", fg=COLOURS.get(name)) + text)


class Output:
    """Prints the lines of children, and keeps the link that the console printed last.

    So the link is on no command line and in no environment.
    """

    link: str | None = None

    def show(self, name: str, line: bytes) -> None:
        """Print a line of a child's output after its name."""
        if name == CONSOLE and (found := LINK.search(line)):
            self.link = found[0].decode(errors="replace")
        show_line(name, line)


def banner(
    environment: Mapping[str, str],
    exports: Path,
    url: str,
    consumers: Sequence[str],
    *,
    ports: Mapping[str, str],
    console: str,
) -> str:
    """Return what to try first: a command that registers an identity, and one that shows it."""
    key = environment["KRATOS_WEBHOOK_API_KEYS"].split(",")[0].strip()
    header = f"{environment.get('KRATOS_WEBHOOK_API_KEY_HEADER', 'X-Api-Key')}: {key}"
    identity = registration(datetime.now(UTC))
    curl = ["curl", "-i", f"{url}/kratos/sync-identity", "-H", header]
    curl += ["-H", "Content-Type: application/json", "-d", json.dumps({"identity": identity})]
    history = [_nearby(Path(program())), "history", str(identity["id"])]
    listed = ", ".join(f"{each} ({name})" for name, each in ports.items())
    metrics = f"Metrics:   /metrics on the ports {listed}\n" if ports else ""
    return f"""
Ready:     {url} (Ctrl-C stops everything)
Key:       {header}
Console:   {console}
Consumers: {", ".join(consumers)}
{metrics}
To register an identity, copy this line into another terminal:
{shlex.join(curl)}

See what became of it, in the same terminal:
(. {shlex.quote(_nearby(exports.absolute()))} && {shlex.join(history)})
"""


def registration(now: datetime) -> dict[str, object]:
    """Return an example identity that registers now, as Kratos sends it."""
    email, moment = "robin@example.org", now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    times = {"created_at": moment, "updated_at": moment}
    address = {"id": str(uuid4()), "value": email, "via": "email", **times}
    return {
        "id": str(uuid4()),
        "schema_id": "person",
        "schema_url": "http://127.0.0.1:4433/schemas/cGVyc29u",
        "state": "active",
        "state_changed_at": moment,
        "traits": {"email": email, "name": {"first": "Robin", "last": "Example"}},
        "verifiable_addresses": [{**address, "status": "sent", "verified": False}],
        "recovery_addresses": [{**address, "id": str(uuid4())}],
        "metadata_public": None,
        "organization_id": None,
        **times,
    }


def _require_free(name: str, address: Address, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    while True:
        try:
            return socket.create_server(address, family=family).close()
        except OSError as error:
            if time.monotonic() > deadline:
                reason = str(error.strerror).partition(" (while")[0]
                option = "--console-port" if name == CONSOLE else "--port"
                raise click.ClickException(
                    f"Cannot listen on {address.host}, port {address.port} ({reason}):"
                    f" choose another with {option}."
                ) from error
        time.sleep(POLL_SECONDS)


def _environment(data: Path, undo: ExitStack, *, no_broker: bool) -> dict[str, str]:
    """Return the children's environment; start a server for each URL that is not configured."""
    from kratos_sync.infrastructure.embedded import EmbeddedPostgres, EmbeddedValkey
    from kratos_sync.infrastructure.secret_files import TOGETHER, names_a_file, written_in_dotenv

    given = {k: v for k, v in {**written_in_dotenv(), **os.environ}.items() if v}
    if given.get(EXPORTED_BY) == str(data.absolute()):
        # From `. .data/env`: its servers ended with the dev that started them.
        given = {k: v for k, v in given.items() if k not in OWN_URLS}
    _read_files(given)
    if no_broker:
        given["BROKER_URL"] = IN_MEMORY
    for name in ("DATABASE_URL", "BROKER_URL"):
        if given.get(name, IN_MEMORY) != IN_MEMORY:
            _say(f"Using {name} from the environment, and no server of our own for it.")
    if "DATABASE_URL" not in given:
        given["DATABASE_URL"] = undo.enter_context(EmbeddedPostgres(data / "postgresql")).url
    if "BROKER_URL" not in given:
        given["BROKER_URL"] = undo.enter_context(EmbeddedValkey(data / "valkey")).url
    if "KRATOS_WEBHOOK_API_KEYS" not in given:
        given["KRATOS_WEBHOOK_API_KEYS"] = kept_key(data)
    # Children read .env themselves: they must know whether these come from there.
    from_file = given.keys() - os.environ.keys()
    kept = {
        name: value
        for name, value in given.items()
        if name not in from_file or not (name.lower() in TOGETHER or names_a_file(name))
    }
    return {"LOG_FORMAT": "console", **kept}


def _read_files(given: dict[str, str]) -> None:
    """Replace DATABASE_URL_FILE and the like by what the file says. Raises click.UsageError."""
    from kratos_sync.infrastructure.secret_files import SUFFIX, Refused, from_files

    of_processes = {name: given[name] for name in given.keys() & os.environ.keys()}
    names = [name.lower() for name in (*OWN_URLS, "KRATOS_WEBHOOK_API_KEYS")]
    for name, value in from_files(of_processes, names).items():
        if isinstance(value, Refused):
            raise click.UsageError(f"{name.upper()}: {value.reason}")
        for variable in [each for each in given if each.lower() == name + SUFFIX]:
            del given[variable]
        given[name.upper()] = value


def _consumers(environment: Mapping[str, str]) -> list[str]:
    """Return the consumers that the children will run. Raises click.ClickException."""
    from kratos_sync.api.cli.process import expected_errors
    from kratos_sync.infrastructure.application import subscriptions_at

    with expected_errors():
        return list(subscriptions_at(environment.get("KRATOS_SYNC_APP")).consumers)


def _migrate(children: ChildProcesses, shutdown: ShutdownSignals) -> None:
    shutdown.pause(0)
    children.start("migrate", [program(), "migrate"])
    deadline = time.monotonic() + MIGRATE_SECONDS
    while (ended := children.ended()) is None:
        shutdown.pause(POLL_SECONDS)
        if time.monotonic() > deadline:
            raise click.ClickException(f"migrate took over {MIGRATE_SECONDS:.0f} s.")
    if ended[1] != 0:
        raise click.ClickException(f"migrate failed with exit code {ended[1]}.")


def _serve(
    children: ChildProcesses,
    shutdown: ShutdownSignals,
    addresses: Mapping[str, Address],
    metrics_ports: Mapping[str, str],
    service: Sequence[str],
) -> None:
    """Start every process, and wait until those with an address are ready."""
    options = {
        name: ["--host", address.host, "--port", str(address.port)]
        for name, address in addresses.items()
    }
    if CONSOLE in options:
        options[CONSOLE].append("--link")
    if ALL in service:
        options[ALL] = options.pop("api")
    for name in dict.fromkeys([*service, *options]):
        own = {"METRICS_PORT": metrics_ports[name]} if name in metrics_ports else {}
        children.start(name, [program(), name, *options.get(name, [])], own)
    deadline = time.monotonic() + READY_SECONDS
    for name, address in addresses.items():
        while not _answers(address, READY_PATHS[name]):
            _pause(children, shutdown)
            if time.monotonic() > deadline:
                raise click.ClickException(
                    f"The {name} was not ready within {READY_SECONDS:.0f} s."
                )


def _link(output: Output, children: ChildProcesses, shutdown: ShutdownSignals) -> str:
    """Return the link, which the console prints before it answers."""
    while output.link is None:
        _pause(children, shutdown)
    return output.link


def _pause(children: ChildProcesses, shutdown: ShutdownSignals) -> None:
    shutdown.pause(POLL_SECONDS)
    if (ended := children.ended()) is not None:
        raise click.ClickException(
            f"{ended[0]} ended by itself with exit code {ended[1]}: see its output above."
        )


def _answers(address: Address, path: str) -> bool:
    with closing(http.client.HTTPConnection(address.reachable, address.port, timeout=1)) as caller:
        try:
            caller.request("GET", path)
            return caller.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False


def _say(text: str) -> None:
    with suppress(OSError):
        echo(*text.split("\n"))


def _nearby(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(text)
