"""Which rows of `kratos_sync.deliveries` a filter of dead letters means, in SQL."""

from typing import Final

from sqlalchemy import TextClause, text

from application.ports.dead_letters import DeadLetterFilter

# Rows from before revision 0002 have no type of their own: it is read out of the error, as
# application.ports.history.error_type does. The first line that is not indented after the last
# frame begins with it, or else it is not told.
EXCEPTION: Final = r"""
    coalesce(d.error_type, substring(
        substring(regexp_replace(d.last_error, '^.*\n[ |]*File "[^\n]*', '')
                  from '(?n)^(?: *\| )?(\S.*)$')
        from '^([\w.<>]+)(?::|$)'), 'unknown error')
"""

_CONDITIONS: Final = {
    "event_id": "d.event_id = :event_id",
    "consumer": "d.consumer = :consumer",
    # One look at a key for each row; joined, the planner might read all events first.
    "event": "(SELECT e.name FROM kratos_sync.events e WHERE e.id = d.event_id) = :event",
    "exception": f"""
        right({EXCEPTION}, length(CAST(:exception AS text)) + 1)
        IN (CAST(:exception AS text), '.' || CAST(:exception AS text))
    """,
    "since": "d.failed_at >= :since",
    "until": "d.failed_at <= :until",
}


def filled(statement: str, wanted: DeadLetterFilter) -> tuple[TextClause, dict[str, object]]:
    """Put the filter where the statement says ``{conditions}``, on ``kratos_sync.deliveries d``.

    Gives the statement, and the filter's parameters.
    """
    given = {name: getattr(wanted, name) for name in _CONDITIONS}
    parameters = {name: value for name, value in given.items() if value is not None}
    clauses = ["d.failed_at IS NOT NULL", *(_CONDITIONS[name] for name in parameters)]
    return text(statement.format(conditions=" AND ".join(clauses))), parameters
