"""What Kratos' Admin API answers, as recorded: see `tests/recordings/admin.json`."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

from kratos_sync.testing.kratos import Documents
from tests.kratos.reply import Reply

LISTING = "/admin/identities"
BY_EXTERNAL_ID = f"{LISTING}/by/external/"
DEFAULT_PAGE, LARGEST_PAGE, MOST_IDS, MOST_BY_NUMBER = 250, 500, 500, 1000
FIRST = UUID(int=0)
FILTERS = (
    "ids",
    "organization_id",
    "credentials_identifier",
    "preview_credentials_identifier_similar",
)
SEARCH_BY_NUMBER = (
    "Legacy pagination is not supported for enumerating over 1000 items."
    " Please switch to using page_token and page_size."
)
BAD_TOKEN = "The page token is invalid, do not craft your own page tokens"
WITH_JSON = {"Content-Type": "application/json; charset=utf-8"}

Query = Mapping[str, list[str]]


class BadRequest(Exception):
    """What Kratos answers 400, with this reason."""


def answer(people: Documents, method: str, target: str) -> Reply:
    """The answer to a request for this path and query."""
    parts = urlsplit(target)
    if parts.path == LISTING and method == "GET":
        try:
            return _listing(people, parse_qs(parts.query, keep_blank_values=True))
        except BadRequest as bad:
            message = "The request was malformed or contained invalid parameters"
            return error(HTTPStatus.BAD_REQUEST, message, str(bad))
    if parts.path.startswith(f"{LISTING}/") and method in {"GET", "DELETE"}:
        return _single(people, method, parts.path)
    return Reply(404, {"Content-Type": "text/plain; charset=utf-8"}, b"404 page not found\n")


def error(status: HTTPStatus, message: str, reason: str | None = None) -> Reply:
    """An error in Kratos' form."""
    said: dict[str, Any] = {"code": status.value, "status": status.phrase}
    if reason is not None:
        said["reason"] = reason
    body = json.dumps({"error": said | {"message": message}}).encode()
    return Reply(status.value, {"Content-Type": "application/json"}, body)


def _single(people: Documents, method: str, path: str) -> Reply:
    if path.startswith(BY_EXTERNAL_ID):
        shown = people.search("external_id", path.removeprefix(BY_EXTERNAL_ID))
    else:
        identity_id = _uuid(path.removeprefix(f"{LISTING}/"))
        if identity_id is not None and method == "DELETE" and people.remove(identity_id):
            return Reply(204, {}, b"")
        shown = None if identity_id is None else people.shown(identity_id)
    if shown is None:
        return error(HTTPStatus.NOT_FOUND, "Unable to locate the resource")
    return Reply(200, WITH_JSON, shown + b"\n")


def _listing(people: Documents, query: Query) -> Reply:
    ids = _ids(query)
    if sum(name in query for name in FILTERS) > 1:
        raise BadRequest("You cannot combine multiple filters in this API")
    size, token = _page(query)
    if "credentials_identifier" in query:
        found = people.search("identifier", query["credentials_identifier"][0])
        listed = [] if found is None else [(FIRST, found)]
    elif "ids" in query:
        listed = [(each, text) for each, text in people.chosen(ids) if each > token][: size + 1]
    else:
        listed = people.listed(token, size + 1)
    page = listed[:size]
    links = [_link(query, size, FIRST, "first")]
    if len(listed) > size:
        links.append(_link(query, size, page[-1][0], "next"))
    body = b"[" + b",".join(text for _, text in page) + b"]\n"
    return Reply(200, {**WITH_JSON, "Link": ",".join(links)}, body)


def _ids(query: Query) -> list[UUID]:
    ids: list[UUID] = []
    for text in query.get("ids", ()):
        identity_id = _uuid(text)
        if identity_id is None:
            raise BadRequest(f"Invalid UUID value `{text}` for parameter `ids`.")
        ids.append(identity_id)
    if len(ids) > MOST_IDS:
        raise BadRequest("The number of ids to filter must not exceed 500.")
    return ids


def _page(query: Query) -> tuple[int, UUID]:
    if "page" in query or "per_page" in query:
        if _number(query, "page", 0) * _number(query, "per_page", DEFAULT_PAGE) > MOST_BY_NUMBER:
            raise BadRequest(SEARCH_BY_NUMBER)
        raise BadRequest("this stand-in has no pages by number")
    size = min(_number(query, "page_size", DEFAULT_PAGE), LARGEST_PAGE)
    token = _uuid(query["page_token"][0]) if "page_token" in query else FIRST
    if token is None:
        raise BadRequest(BAD_TOKEN)
    return size if size > 0 else DEFAULT_PAGE, token


def _number(query: Query, name: str, default: int) -> int:
    try:
        return int(query[name][0]) if name in query else default
    except ValueError:
        raise BadRequest(f"The value of {name} is not a number") from None


def _link(query: Query, size: int, token: UUID, rel: str) -> str:
    kept = {**query, "page_size": [str(size)], "page_token": [str(token)]}
    return f'<{LISTING}?{urlencode(sorted(kept.items()), doseq=True)}>; rel="{rel}"'


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
