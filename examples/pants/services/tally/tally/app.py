"""A service without packaging files: its BUILD file says what to run."""

from itertools import count

from common.words import greeting
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

visitors = count(1)


async def tally(request):
    return PlainTextResponse(f"{greeting()}, visitor {next(visitors)}")


app = Starlette(routes=[Route("/", tally)])
