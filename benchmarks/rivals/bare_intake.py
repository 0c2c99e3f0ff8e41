"""A route that does nothing: what uvicorn and Starlette leave to whoever does something."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def take_in(request: Request) -> Response:
    """Read the webhook, and say that it was."""
    await request.body()
    return JSONResponse({})


app = Starlette(routes=[Route("/kratos/sync-identity", take_in, methods=["POST"])])
