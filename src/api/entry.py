"""The program `kratos-sync`: what need not be quick is left to the command line."""

import sys


def main() -> None:
    """Run a command; `healthcheck` without loading the others' libraries."""
    if sys.argv[1:2] == ["healthcheck"]:
        from kratos_sync.api.healthcheck import answer_to, question_of

        if (question := question_of(sys.argv[2:])) is not None:
            is_well, line = answer_to(question)
            print(line, file=sys.stdout if is_well else sys.stderr)
            sys.exit(0 if is_well else 1)
    from kratos_sync.api.cli import main as command_line

    command_line()
