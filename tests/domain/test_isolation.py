"""The domain knows the standard library, and nothing else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_module_of_the_domain_imports_without_any_package_installed() -> None:
    modules = sorted(
        f"kratos_sync.domain.{path.stem}" for path in (ROOT / "src/domain").glob("[!_]*.py")
    )

    done = subprocess.run(
        [sys.executable, "-S", "-W", "error", "-c", f"import {', '.join(modules)}"],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert modules
    assert (done.returncode, done.stderr) == (0, "")
