"""The service."""

from pathlib import Path

import jinja2
from shop_common.web import application
from shop_money import amount
from starlette.responses import HTMLResponse
from starlette.routing import Route

page = jinja2.Template(Path(__file__).with_name("page.html").read_text())
articles = {"a chair": 12, "a table": 30}


async def index(request):
    return HTMLResponse(page.render(articles={name: amount(price, "EUR") for name, price in articles.items()}))


app = application([Route("/", index)])
