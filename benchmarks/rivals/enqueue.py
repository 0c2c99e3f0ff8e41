"""Enqueues events for a rival: ``python -m benchmarks.rivals.enqueue MODULE FILE``.

The file has an event in each line, as the arguments of a job.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

AT_ONCE = 500
Events = Iterable[Sequence[dict[str, Any]]]
"""All events, some hundred at a time."""


def events_in(file: Path) -> Iterator[Sequence[dict[str, Any]]]:
    """Read the file."""
    with file.open() as lines:
        while some := [json.loads(line) for line in islice(lines, AT_ONCE)]:
            yield some


if __name__ == "__main__":
    module, file = sys.argv[1:]
    import_module(module).enqueue(events_in(Path(file)))
