"""Give an identity roles in the console. In the folder of docker-compose.yml:

docker compose exec -T worker python - ada@example.org operator privacy \
    < deploy/kratos/console_roles.py

It is found in Kratos' Admin API by what it signs in with. Without roles it has none afterwards.
"""

import json
import os
import sys
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

ROLES = ("viewer", "operator", "privacy")
SECONDS = 10


def main(identifier="", *roles):
    """Write the roles into the identity's public metadata; the rest of it stays."""
    if not identifier or not set(roles) <= {*ROLES}:
        sys.exit(f"Say what the identity signs in with, and its roles: {', '.join(ROLES)}.")
    identities = f"{os.environ['KRATOS_ADMIN_URL'].rstrip('/')}/admin/identities"
    found = ask("GET", f"{identities}?{urlencode({'credentials_identifier': identifier})}")
    if not found:
        sys.exit(f"Nobody signs in as {identifier}.")
    metadata = {**(found[0].get("metadata_public") or {}), "kratos_sync_roles": [*roles]}
    change = [{"op": "add", "path": "/metadata_public", "value": metadata}]
    ask("PATCH", f"{identities}/{found[0]['id']}", change)
    print(f"{identifier} has now: {', '.join(roles) or 'no role'}.")


def ask(method, url, body=None):
    headers = {"Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    request = Request(url, content, headers, method=method)  # noqa: S310  # the Admin API's
    with build_opener(ProxyHandler({})).open(request, timeout=SECONDS) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
