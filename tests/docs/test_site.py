import subprocess
import sys
from pathlib import Path

from tests.docs.pages import DOCS
from tests.waiting import DEADLINE_SECONDS


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html"]

    built = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "site")],
        capture_output=True,
        text=True,
        timeout=5 * DEADLINE_SECONDS,
        check=False,
    )

    assert built.returncode == 0, built.stderr
    settings = (tmp_path / "site" / "reference" / "settings.html").read_text()
    assert "KRATOS_WEBHOOK_API_KEYS" in settings
    commands = (tmp_path / "site" / "reference" / "cli.html").read_text()
    assert "--allow-deletes" in commands
    assert ".. option::" not in commands
