"""The domain knows the standard library, and nothing else."""

import subprocess
import sys
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"


def test_every_module_of_the_domain_imports_without_any_package_installed() -> None:
    modules = sorted(f"domain.{path.stem}" for path in (SRC / "domain").glob("[!_]*.py"))

    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", f"import {', '.join(modules)}"],
        env={"PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert modules
    assert (done.returncode, done.stderr) == (0, "")
