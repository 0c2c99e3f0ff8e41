"""Finds the templates of a configuration, and runs them where they can do no harm."""

import binascii
import json
import signal
import subprocess
import sys
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Final

from application.kratos_config.mapper import Problem, Rendered
from infrastructure import jsonnet_child

MOST_BYTES: Final = 262_144
TIME_LIMIT: Final = 60.0
"""Seconds of the clock for all templates; the child bounds the processor time of one."""

_TOO_SLOW: Final = (-signal.SIGXCPU, -signal.SIGKILL)


class KratosTemplates:
    """The templates that a configuration in this folder names; None is standard input.

    Files are looked for where Kratos would, and by name beside the configuration, which is often
    mounted with them. Each template runs once, in a process of its own without imports.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._rendered: dict[tuple[str, Sequence[str]], Rendered] = {}
        self._left = TIME_LIMIT
        self._texts: dict[tuple[str, Sequence[str]], Rendered] = {}

    def render(self, body: str, contexts: Sequence[str]) -> Rendered:
        """Run the template that a ``body`` names with each context as ``ctx``."""
        key = (body, contexts)
        if key not in self._rendered:
            self._rendered[key] = self._render(body, contexts)
        return self._rendered[key]

    def _render(self, body: str, contexts: Sequence[str]) -> Rendered:
        text = self._read(body)
        if isinstance(text, Problem):
            return Rendered(problem=text)
        key = (text, contexts)
        if key not in self._texts:
            began = monotonic()
            self._texts[key] = _run(text, contexts, self._left)
            self._left -= monotonic() - began
        return self._texts[key]

    def _read(self, body: str) -> str | Problem:
        scheme, separator, rest = body.partition("://")
        if separator and scheme in ("http", "https"):
            return Problem.NOT_LOOKED_AT
        if separator and scheme == "base64":
            return _decoded(rest)
        return self._read_file(rest if separator and scheme == "file" else body)

    def _read_file(self, name: str) -> str | Problem:
        path = Path(name)
        candidates = [path]
        if self._folder is not None:
            candidates.append(self._folder / (path.name if path.is_absolute() else path))
        try:
            found = next((one for one in candidates if one.is_file()), None)
            if found is None:
                return self._absent(path)
            with found.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
            return Problem.NOT_RUN if len(content) > MOST_BYTES else content.decode()
        except UnicodeDecodeError:
            return Problem.NOT_JSONNET
        except (OSError, ValueError):
            return Problem.NOT_RUN

    def _absent(self, path: Path) -> Problem:
        if self._folder is None:
            return Problem.NOT_LOOKED_AT
        is_here = not path.is_absolute() or path.parent.is_dir()
        return Problem.MISSING if is_here else Problem.FOLDER_ELSEWHERE


def _decoded(encoded: str) -> str | Problem:
    try:
        content = b64decode(encoded.replace("\r", "").replace("\n", ""), validate=True)
        return Problem.NOT_RUN if len(content) > MOST_BYTES else content.decode()
    except (binascii.Error, ValueError):
        return Problem.NOT_BASE64


def _run(template: str, contexts: Sequence[str], seconds: float) -> Rendered:
    if seconds <= 0:
        return Rendered(problem=Problem.NOT_RUN)
    try:
        done = subprocess.run(  # noqa: S603 - our own program, and no shell
            [sys.executable, "-I", jsonnet_child.__file__],
            input=json.dumps({"template": template, "contexts": contexts}),
            encoding="utf-8",
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return Rendered(problem=Problem.NOT_RUN)
    if done.returncode in _TOO_SLOW:
        return Rendered(problem=Problem.TOO_SLOW)
    if done.returncode != 0:
        return Rendered(problem=Problem.NOT_RUN)
    answer = json.loads(done.stdout)
    if not answer["runs"]:
        return Rendered(problem=Problem.NOT_JSONNET)
    return Rendered(answer["outputs"])
