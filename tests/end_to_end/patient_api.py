"""`kratos-sync` whose api waits for the headers of a request as long as it takes.

python patient_api.py api
"""

from kratos_sync.api.cli import main
from kratos_sync.api.http import connections

if __name__ == "__main__":
    connections.HEAD_SECONDS = 3_600
    main()
