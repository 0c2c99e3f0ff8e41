"""Writing down what a run says."""

import json
from pathlib import Path

from benchmarks.goals import Results
from benchmarks.page import filled
from benchmarks.plots import plot
from benchmarks.report import SECTIONS


def publish(results: Results, template: Path, page: Path) -> None:
    """Write the page, and beside it a folder of its name with the JSON and the plots."""
    texts = {name: section(results) for name, section in SECTIONS.items()}
    text = filled(template.read_text(), texts)
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    plot(results, folder)
    page.write_text(text)
