"""How each kind of fault is done.

Returns when the fault is over. Raises AssertionError when it could not be done, so that it is not
counted.
"""

from collections.abc import Callable, Mapping
from typing import Final

from tests.faults import consumer_faults, process_faults, server_faults, wire_faults
from tests.faults.schedule import Fault
from tests.faults.stage import Stage

INJECTIONS: Final[Mapping[str, Callable[[Stage, Fault], None]]] = {
    "api killed": process_faults.kill,
    "relay killed": process_faults.kill,
    "worker killed": process_faults.kill,
    "worker's supervisor killed": process_faults.kill_supervisor,
    "api stopped": process_faults.stop,
    "relay stopped": process_faults.stop,
    "worker stopped": process_faults.stop,
    "clock jumps": process_faults.jump_clock,
    "database restarted at once": server_faults.restart_database,
    "database killed": server_faults.kill_database,
    "database backend killed": server_faults.kill_backend,
    "database connections ended": server_faults.end_connections,
    "database connections cut": wire_faults.cut,
    "commit lost": wire_faults.lose_commit,
    "commit's answer lost": wire_faults.lose_answer_to_commit,
    "database silent": wire_faults.silence,
    "database slow": wire_faults.slow_down,
    "database locked": server_faults.lock,
    "database disk full": server_faults.fill_disk,
    "broker killed": server_faults.kill_broker,
    "broker wiped": server_faults.wipe_broker,
    "broker replaced": server_faults.replace_broker,
    "broker out of memory": server_faults.starve_broker,
    "broker slow": wire_faults.slow_down,
    "broker connections cut": wire_faults.cut,
    "broker's answer lost": wire_faults.lose_answer,
    "broker silent": wire_faults.silence,
    "consumer raises": consumer_faults.raise_,
    "consumer hangs": consumer_faults.hang,
    "consumer hangs in a call": consumer_faults.hang_in_a_call,
    "consumer hangs in SQL": consumer_faults.hang_in_sql,
    "consumer keeps the interpreter": consumer_faults.keep_the_interpreter,
    "consumer eats memory": consumer_faults.eat_memory,
    "consumer exits": consumer_faults.exit_,
}
