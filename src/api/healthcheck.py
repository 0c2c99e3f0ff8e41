"""`kratos-sync healthcheck`: asks a process how it is, without importing the service or click.

It runs every few seconds in each container, so that its start has to be quick.
"""

import os
import socket
from typing import Final, NamedTuple

ALL: Final = ("api", "delivery")
"""The processes of `kratos-sync all`, each on the port after that of the one before."""
PROCESSES: Final = ("api", "relay", "worker", "reconcile", "console", "all")
SECONDS: Final = 4.0
"""The most that an answer may take; it takes a millisecond."""
MOST_BYTES: Final = 65_536
LARGEST_PORT: Final = 65_535
_ANY: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # they listen there


class Question(NamedTuple):
    """Asks a process, any if it is not named, on METRICS_PORT or another port."""

    process: str | None = None
    port: int | None = None
    live: bool = False
    """Whether it works, and not whether it is of use."""


def question_of(words: list[str]) -> Question | None:
    """Read the words after `healthcheck`; None for what the command line has to explain."""
    question, rest = Question(), iter(words)
    for word in rest:
        if word in PROCESSES and question.process is None:
            question = question._replace(process=word)
        elif word == "--live":
            question = question._replace(live=True)
        elif word == "--port" and (port := _port(next(rest, ""))):
            question = question._replace(port=port)
        else:
            return None
    return question


def answer_to(question: Question) -> tuple[bool, str]:
    """Ask; return whether all is well, and a line that says why or why not."""
    given = question.port or _port(_setting("METRICS_PORT"))
    if not given:
        return False, "METRICS_PORT is not set: a process says there how it is"
    if question.process != "all":
        return _ask(question.process, given, live=question.live)
    answers = [_ask(name, port, live=question.live) for port, name in enumerate(ALL, given)]
    lines = [
        f"{name} {line}" for name, (is_well, line) in zip(ALL, answers, strict=True) if not is_well
    ]
    return not lines, "; ".join(lines) or answers[0][1]


def _ask(wanted: str | None, port: int, *, live: bool) -> tuple[bool, str]:
    host = _setting("METRICS_HOST")
    path = "/health/live" if live else "/health/ready"
    try:
        status, body = _get(_ANY.get(host, host), port, path)
    except TimeoutError:
        return False, f"no answer from port {port} within {SECONDS:.0f} s"
    except (OSError, OverflowError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "HTTP"
        return False, f"no answer from port {port}: {reason}"
    process, reasons = _read(body)
    if wanted is not None and process not in {None, wanted}:
        return False, f"on port {port} answers the {process}, and not the {wanted}"
    state = "live" if live else "ready"
    if status == 200:  # noqa: PLR2004  # http is slow to import
        return True, state
    return False, f"not {state}: {reasons or f'it answers with {status}'}"


def _port(text: str) -> int | None:
    is_port = text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= LARGEST_PORT
    return int(text) if is_port else None


def _setting(name: str) -> str:
    """A setting as the process has it: from the environment, or from `.env`."""
    for given in (name, name.lower()):
        if given in os.environ:
            return os.environ[given]
    if not os.path.exists(".env"):  # noqa: PTH110  # pathlib is slow to import
        return ""
    from dotenv import dotenv_values

    return {
        key.upper(): value for key, value in dotenv_values(".env", interpolate=False).items()
    }.get(name) or ""


def _get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Raises OSError, or ValueError for what is no HTTP."""
    answer = bytearray()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(SECONDS)
        # As text it would load the codec for international names.
        connection.connect((host.encode(), port))
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        while len(answer) < MOST_BYTES and (data := connection.recv(MOST_BYTES)):
            answer += data
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    version, status, *_ = head.split(b" ", 2)
    if not version.startswith(b"HTTP/1."):
        raise ValueError
    return int(status), body


def _read(body: bytes) -> tuple[str | None, str]:
    """The process that answered, if it says so, and what it lacks."""
    import json

    try:
        document = json.loads(body)
        reasons = document.get("reasons", {})
        lacking = {name: reasons.get(name, "down") for name in document.get("down", ())}
        process = document.get("process")
    except (ValueError, AttributeError, TypeError):
        return None, ""
    line = "; ".join(f"{name}: {reason}" for name, reason in lacking.items())
    return process, "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
