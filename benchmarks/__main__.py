"""``python -m benchmarks [--size small]``: measure, print the table, write the page.

A full run writes docs/performance.md and what it shows; a small one writes the same below .data.
"""

import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

from benchmarks.commands import ROOT
from benchmarks.page import UnknownPlace, filled
from benchmarks.publish import publish
from benchmarks.report import SECTIONS
from benchmarks.report.conditions import machine, paces
from benchmarks.report.speed import goals
from benchmarks.run import run
from benchmarks.sizes import FULL, SIZES
from benchmarks.stage import raised
from benchmarks.verdict import WrongResult
from benchmarks.wrk import WrkNotInstalled, require_wrk

PAGE = ROOT / "docs" / "performance.md"
BRIEF_PAGE = ROOT / ".data" / "benchmark" / "performance.md"


def main() -> int:
    """Run; say what went wrong in one line."""
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default=FULL.name)
    size = SIZES[parser.parse_args().size]
    page = PAGE if size is FULL else BRIEF_PAGE
    try:
        require_wrk()
        filled(PAGE.read_text(), dict.fromkeys(SECTIONS, ""))  # better known now than in the end
        print(f"{size.name}: stays below {size.minutes} minutes", flush=True)
        with (
            tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
            raised(Path(folder)) as stage,
        ):
            results = run(stage, size, lambda line: print(line, flush=True))
    except (WrkNotInstalled, UnknownPlace, WrongResult) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    publish(results, PAGE, page)
    print(f"\n{machine(results)}\n\n{goals(results)}\n\n{paces(results)}\n\nAll of it: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
