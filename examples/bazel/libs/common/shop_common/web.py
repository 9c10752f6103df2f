"""A service's application: its own routes and a health check."""

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def healthz(request):
    return PlainTextResponse("ok\n")


def application(routes):
    return Starlette(routes=[*routes, Route("/healthz", healthz)])
