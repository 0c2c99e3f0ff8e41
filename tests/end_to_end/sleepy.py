"""`kratos-sync` whose relay and worker look for nothing, unless they are woken.

python sleepy.py relay|worker
"""

from kratos_sync.api.cli import main
from kratos_sync.infrastructure.bus import relay
from kratos_sync.infrastructure.worker import process

if __name__ == "__main__":
    relay.IDLE_SECONDS = 3_600
    process.POLL_MILLISECONDS = 3_600_000
    main()
