"""The stand-in in a process of its own."""

import subprocess
import sys
from pathlib import Path

import psutil
from pydantic import SecretStr

from kratos_sync.infrastructure.kratos.admin_api import HttpKratosAdmin
from tests.kratos.population import Population

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.kratos.admin_stand_in", "--port", "0"]


def worked(process: "subprocess.Popen[str]") -> float:
    """How many seconds a process had of the processor."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def test_a_million_are_listed_at_the_pace_of_a_benchmark() -> None:
    command = [*COMMAND, "--identities", "1000000", "--seed", "3", "--missing-every", "2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            admin = HttpKratosAdmin(SecretStr(process.stdout.readline().strip()))
            first = admin.page(None)
            began, token = worked(process), first.next
            for _ in range(20):
                token = admin.page(token).next
            took = worked(process) - began
            population = Population(1_000_000, 3)
            assert admin.find(population.id_of(999_998)) is None
            assert admin.find(population.id_of(999_999))
            admin.close()
        finally:
            process.terminate()

    assert first.identities.startswith(b'[{"id":"%s"' % str(population.id_of(1)).encode())
    assert took < 5
