"""`kratos-sync` whose api waits for requests, and lets them wait, as long as it takes.

python long_waiting_api.py api
"""

from datetime import timedelta

from kratos_sync.api.cli import main
from kratos_sync.api.http import connections
from kratos_sync.api.http.webhooks.sync_identity import KratosIdentitySyncHandler
from kratos_sync.infrastructure.ledger import group_commit

if __name__ == "__main__":
    connections.HEAD_SECONDS = 3_600
    group_commit.QUEUE_SECONDS = 3_600
    KratosIdentitySyncHandler.__init__.__kwdefaults__["max_wait"] = timedelta(hours=1)
    main()
