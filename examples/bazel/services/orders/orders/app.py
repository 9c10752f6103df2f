"""The service."""

import os

from shop_common.web import application
from shop_money import amount
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from orders.store import orders


async def total(request):
    return PlainTextResponse("orders: %s\n" % amount(sum(orders()), os.environ.get("CURRENCY", "EUR")))


app = application([Route("/", total)])
