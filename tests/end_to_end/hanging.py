"""`kratos-sync` that counts as hanging after two seconds, and in which something takes longer.

python hanging.py api|relay|worker …

The api's event loop is blocked by SIGUSR1, until SIGUSR2. A consumer waits for a file `go-on`.
"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Final

from kratos_sync.api.cli import main, observing
from kratos_sync.application.application import Application
from kratos_sync.application.consumer import Consumer
from kratos_sync.domain.events import KratosIdentityUpdated

SECONDS: Final = 2.0
BEGAN, GOES_ON = Path("began"), Path("go-on")


class TakeLong(Consumer[KratosIdentityUpdated]):
    """Waits for somebody to let it go on."""

    name = "TakeLong"

    def consume(self, event: KratosIdentityUpdated) -> None:
        """Wait."""
        BEGAN.touch()
        while not GOES_ON.exists():
            time.sleep(0.02)


app = Application(subscriptions={KratosIdentityUpdated: [TakeLong]})

if __name__ == "__main__":
    os.environ["KRATOS_SYNC_APP"] = "hanging:app"
    observing.LONGEST_TURN.update(api=SECONDS, worker=SECONDS)
    goes_on = threading.Event()
    # Python's handlers run in the main thread, which is the event loop's.
    signal.signal(signal.SIGUSR1, lambda *_: goes_on.wait())
    signal.signal(signal.SIGUSR2, lambda *_: goes_on.set())
    main()
