"""An ASGI application with a greeting, a stream and a health check."""

import asyncio
import os
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

GREETING = (Path(__file__).parent / "greeting.txt").read_text().strip()


async def greet(request: Request) -> Response:
    name = request.query_params.get("name", os.environ.get("HELLO_NAME", "you"))
    return PlainTextResponse(f"{GREETING}, {name}!\n")


async def about(_: Request) -> Response:
    return JSONResponse({"version": version("asgi-hello"), "pid": os.getpid()})


async def count(request: Request) -> Response:
    """Counts slowly, so that one can watch a request end on the version it began on."""

    async def lines() -> AsyncIterator[str]:
        for i in range(int(request.query_params.get("to", "10"))):
            yield f"{GREETING} {i}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/plain")


async def healthy(_: Request) -> Response:
    return PlainTextResponse("ok\n")


app = Starlette(
    routes=[Route("/", greet), Route("/about", about), Route("/count", count), Route("/healthz", healthy)],
)
