"""Pages as HTML: templates that escape everything, and static files named by their content."""

import gzip
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from kratos_sync.api import amounts, views
from kratos_sync.api.attention import hook_name
from kratos_sync.api.http.console.access import Operator, Role
from kratos_sync.api.http.console.security import STATIC_CACHE
from kratos_sync.application.ports.operations import LONGEST_REASON

PACKAGE: Final = "kratos_sync.api.http.console"
MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
NAVIGATION: Final = {
    "/": "Now",
    "/failures": "Failures",
    "/identity": "Identity",
    "/events": "Events",
    "/kratos": "Kratos",
    "/audit": "Audit",
}


class StaticFiles:
    """The files of the folder `static`, in memory, compressed; nothing else can be asked for."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str]] = {}
        self.urls: dict[str, str] = {}
        """The URL of each file, by its name."""
        for file in files(PACKAGE).joinpath("static").iterdir():
            suffix = "." + file.name.rpartition(".")[2]
            if suffix in MEDIA_TYPES:
                content = file.read_bytes()
                url = f"/static/{sha256(content).hexdigest()[:12]}/{file.name}"
                self._files[url] = gzip.compress(content, mtime=0), MEDIA_TYPES[suffix]
                self.urls[file.name] = url

    async def serve(self, request: Request) -> Response:
        """Answer with a file; 404 if there is none."""
        found = self._files.get(request.url.path)
        if found is None:
            return PlainTextResponse("Not found.", 404)
        content, media_type = found
        headers = {"cache-control": STATIC_CACHE, "content-encoding": "gzip"}
        return Response(content, media_type=media_type, headers=headers)


class Templates:
    """Renders the templates of this package."""

    def __init__(self, static: StaticFiles, *, can_sign_out: bool) -> None:
        self._environment = Environment(
            loader=PackageLoader(PACKAGE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.filters |= {
            "time": time,
            "ago": ago,
            "number": number,
            "amount": amounts.amount,
            "commands": commands,
            "duration": duration,
            "failure": views.failure,
            "hook_name": hook_name,
            "pace": views.pace,
            "in_short": views.in_short,
            "about": views.operation_about,
            "done": views.operation_done,
            "state": views.operation_state,
            "why_failed": views.why_failed,
        }
        self._environment.globals |= {
            "static": static.urls,
            "navigation": NAVIGATION,
            "Role": Role,
            "longest_reason": LONGEST_REASON,
            "can_sign_out": can_sign_out,
        }

    def page(
        self,
        request: Request,
        operator: Operator | None,
        template: str,
        context: Mapping[str, Any],
        status: int = 200,
    ) -> HTMLResponse:
        """A page; htmx takes the part of it that it asked for."""
        text = self._environment.get_template(template).render(
            context,
            operator=operator,
            path=request.url.path,
        )
        return HTMLResponse(text, status)

    def error(
        self,
        request: Request,
        operator: Operator | None,
        status: HTTPStatus,
        text: str,
        links: Mapping[str, str] = MappingProxyType({}),
    ) -> HTMLResponse:
        """A page that says what is wrong, and by its links where one goes on."""
        context = {"status": status, "text": text, "links": links}
        return self.page(request, operator, "error.html", context, status)


def time(at: datetime | None) -> Markup:
    """A time in UTC, which a script shows in the zone of who looks."""
    if at is None:
        return Markup("–")
    return _time(at, "", shown=amounts.moment(at))


def ago(at: datetime | None, now: datetime) -> Markup:
    """How long ago something was, with the time itself on hover."""
    if at is None:
        return Markup("never")
    return _time(at, " data-ago", shown=amounts.ago(at, now))


def _time(at: datetime, attribute: str, shown: str) -> Markup:
    # Markup.format takes 15 µs longer, and a page has hundreds of times.
    text = (
        f'<time datetime="{at.isoformat()}" title="{amounts.moment(at)}"{attribute}>{shown}</time>'
    )
    return Markup(text)  # noqa: S704  # times have no character that HTML gives a meaning


def commands(text: str) -> Markup:
    """A sentence in which what stands between backticks is set as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part
        for number, part in enumerate(parts)
    )


def duration(span: timedelta | None) -> str:
    """A duration in its largest units."""
    return "–" if span is None else amounts.duration(span)


def number(value: float) -> str:
    """A number with separators for thousands."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
