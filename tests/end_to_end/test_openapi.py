"""What the API says of itself is so, whatever a fuzzer makes of it."""

import os
import subprocess
import sysconfig
from pathlib import Path

from tests.end_to_end.running_api import RunningApi
from tests.end_to_end.wire import KEY
from tests.waiting import DEADLINE_SECONDS

SCHEMATHESIS = str(Path(sysconfig.get_path("scripts"), "schemathesis"))
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "50")


def test_the_running_api_is_as_its_description_says(api: RunningApi, tmp_path: Path) -> None:
    command = [SCHEMATHESIS, "run", f"http://127.0.0.1:{api.port}/openapi.json"]
    options = {
        "header": f"X-Api-Key: {KEY}",
        "checks": "all",
        "phases": "examples,coverage,fuzzing",
        "max-examples": EXAMPLES,
        "seed": 1,
        "request-timeout": 20,
    }
    done = subprocess.run(
        [*command, *(f"--{name}={value}" for name, value in options.items()), "--no-color"],
        cwd=tmp_path,
        env={"HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=5 * DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
