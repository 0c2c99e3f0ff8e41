"""What a run was made on, and how fast that was at the time."""

from statistics import median

from benchmarks.goals import Results
from benchmarks.report.markdown import table


def machine(results: Results) -> str:
    """What the run was made on, in a sentence or two."""
    on = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in on["packages"].items())
    return (
        f"Size `{results['size']}`, {results['at'][:10]}, {results['seconds']} s in all:"
        f" {on['cores']} cores of {on['processor']}, {on['memory_gb']} GB, {on['system']},"
        f" Python {on['python']}, PostgreSQL {on['postgresql']}, Valkey {on['valkey']}; {packages}."
    )


def paces(results: Results) -> str:
    """How fast the machine was before each measure and in it, of the fastest it was in the run."""
    return table(
        ("measure", "took", "looked", "median", "slowest"),
        (
            (
                f"`{name}`",
                f"{of['seconds']:.0f} s",
                len(of["of_the_best"]),
                f"{100 * median(of['of_the_best']):.0f} %",
                f"{100 * min(of['of_the_best']):.0f} %",
            )
            for name, of in results["speed"].items()
        ),
    )
