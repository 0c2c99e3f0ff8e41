"""A process that runs one Jsonnet template, within bounds, and without imports.

Standard input is ``{"template": "…", "contexts": ["…"]}``, standard output ``{"runs": true,
"outputs": ["…", null]}``: null where the template failed; ``runs`` is false if it always does.
"""

import json
import resource
import sys
from typing import Final, NoReturn

SECONDS: Final = 3
"""Of processor time, for all contexts: Kratos gives each a second."""
MEMORY: Final = 1 << 30
MOST_OUTPUT: Final = 262_144
_ALWAYS: Final = (
    "syntax error",
    "variable is not defined",
    "external variable is not defined",
    "import_callback error",
    "parameter ctx is not defined",
)
"""How errors begin that no context can avoid."""


def main() -> None:
    """Run what stands on standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    asked = json.load(sys.stdin)
    answers = [_evaluate(asked["template"], context) for context in asked["contexts"]]
    outputs = [None if failed else text for text, failed in answers]
    runs = not any(failed and text.startswith(_ALWAYS) for text, failed in answers)
    json.dump({"runs": runs, "outputs": outputs}, sys.stdout)


def _evaluate(template: str, context: str) -> tuple[str, bool]:
    import rjsonnet

    try:
        output = rjsonnet.evaluate_snippet(
            "body", template, tla_codes={"ctx": context}, import_callback=_refuse
        )
    except RuntimeError as error:
        return str(error), True
    return (output, False) if len(output) <= MOST_OUTPUT else ("too large", True)


def _refuse(*_: object) -> NoReturn:
    raise RuntimeError("imports are off")


if __name__ == "__main__":
    main()
