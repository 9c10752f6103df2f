"""A service that is a project: its pyproject.toml says what to run."""

from common.words import greeting
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def hello(request):
    return PlainTextResponse(f"{greeting()} from greet")


async def healthz(request):
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/", hello), Route("/healthz", healthz)])
