"""A worker gives the memory of a large event back to the system."""

import platform
import subprocess
import sys

import pytest

from tests.waiting import DEADLINE_SECONDS

MIB = 1024 * 1024
SCRIPT = """
import sys
from pathlib import Path
from kratos_sync.infrastructure.worker.process import return_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

if sys.argv[1] == "returned":
    return_freed_memory()
b"x" * (30 << 20)
before = resident()
blocks = [b"x" * (2 << 20) for _ in range(20)]
last = blocks.pop()
blocks.clear()
print(resident() - before)
"""


def kept_after(how: str) -> int:
    """How much a process keeps of 40 MiB, of which it uses 2, after one of 30 MiB was freed."""
    command = [sys.executable, "-c", SCRIPT, how]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=DEADLINE_SECONDS
    )
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory so")
def test_freed_blocks_return_to_the_system() -> None:
    assert kept_after("kept") > 30 * MIB
    assert kept_after("returned") < 6 * MIB
