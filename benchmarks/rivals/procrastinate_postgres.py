"""Procrastinate, whose queue is in PostgreSQL, and SQLAlchemy."""

import os
from typing import Any

from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from benchmarks.rivals import work
from benchmarks.rivals.enqueue import Events

URL = os.environ["DATABASE_URL"]
LIBPQ_URL = URL.replace("postgresql+psycopg://", "postgresql://")
app = App(connector=PsycopgConnector(conninfo=LIBPQ_URL, max_size=work.POOL_SIZE))
new_session = sessionmaker(create_engine(URL, pool_size=work.POOL_SIZE))


@app.task(name="sync_identity")
def sync_identity(event_id: str, identity: dict[str, Any]) -> None:
    """Procrastinate finishes the job when this returns."""
    with new_session.begin() as session:
        work.sync_identity(session, event_id, identity)


def enqueue(events: Events) -> None:
    """Defer a job for each."""
    connector = SyncPsycopgConnector(conninfo=LIBPQ_URL)
    with app.replace_connector(connector) as enqueuing, enqueuing.open():
        for some in events:
            enqueuing.configure_task("sync_identity").batch_defer(*some)
