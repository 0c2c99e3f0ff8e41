"""Faults that consumers do: events that get them into trouble, once or twice, and then do not."""

from functools import partial
from typing import Final

from tests.faults.schedule import Fault
from tests.faults.stage import Stage
from tests.waiting import until

HAPPENS_SECONDS: Final = 100.0
"""How long the trouble is waited for: a worker may have to be replaced in between,
and one whose interpreter is kept is given half a minute."""


def _get_into_trouble(trouble: str, stage: Stage, fault: Fault) -> None:
    troubles = 1 + fault.number % 2
    call = stage.kratos.call(trouble=trouble, troubles=troubles).result(HAPPENS_SECONDS)
    if not call.is_accepted:
        call = stage.kratos.call(trouble=trouble, troubles=troubles).result(HAPPENS_SECONDS)
    happened = stage.troubles / call.trigger
    until(lambda: happened.exists() and happened.stat().st_size == troubles, HAPPENS_SECONDS)


raise_ = partial(_get_into_trouble, "raises")
hang = partial(_get_into_trouble, "hangs")
hang_in_a_call = partial(_get_into_trouble, "hangs in a call")
keep_the_interpreter = partial(_get_into_trouble, "keeps the interpreter")
hang_in_sql = partial(_get_into_trouble, "hangs in SQL")
eat_memory = partial(_get_into_trouble, "eats memory")
exit_ = partial(_get_into_trouble, "exits")
