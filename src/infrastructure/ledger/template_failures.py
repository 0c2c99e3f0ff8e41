"""Calls that Kratos made with an empty body, since everybody was last compared with Kratos."""

from typing import Final

from sqlalchemy import Connection, text

from application.ports.hook_log import MOST_LABELS
from application.ports.status import TemplateFailures
from domain.template_failure import NO_IDENTITY, KratosTemplateFailed

# The index by subject leads to them, however many other events there are. A time to come is by a
# clock that was ahead, and is not believed.
TEMPLATE_FAILURES: Final = text("""
    SELECT coalesce(payload ->> 'hook', ''), count(*), min(recorded_at), max(recorded_at)
    FROM kratos_sync.events
    WHERE subject = :nobody AND name = :name AND recorded_at > coalesce(
        (SELECT max(started_at) FROM kratos_sync.reconciliations
         WHERE outcome = 'completed' AND started_at <= clock_timestamp()),
        '-infinity')
    GROUP BY 1 ORDER BY 1 LIMIT :most
""").bindparams(nobody=NO_IDENTITY, name=KratosTemplateFailed.name, most=MOST_LABELS)


def template_failures(connection: Connection) -> tuple[TemplateFailures, ...]:
    """Give them by hook, in the order of labels."""
    return tuple(TemplateFailures(*row) for row in connection.execute(TEMPLATE_FAILURES))
