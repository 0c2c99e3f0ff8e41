from rich.progress import Progress

from kratos_sync.api.cli.output import _Rate


def test_a_bar_tells_how_many_are_done_in_a_second() -> None:
    clock = iter(range(100))
    bar = Progress(_Rate(), get_time=lambda: float(next(clock)))
    number = bar.add_task("Reconcile", total=10_000)
    (task,) = bar.tasks
    assert str(_Rate().render(task)) == ""
    for done in (1_000, 3_000, 5_000):
        bar.update(number, completed=done)
    assert str(_Rate().render(task)).endswith("/s")
