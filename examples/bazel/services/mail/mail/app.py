"""The service."""

from email.message import EmailMessage

from shop_common.web import application
from starlette.responses import PlainTextResponse
from starlette.routing import Route


def greeting(name):
    message = EmailMessage()
    message["Subject"] = "Your order"
    message.set_content(f"Dear {name}, thank you for your order.")
    return message


async def preview(request):
    return PlainTextResponse(greeting(request.query_params.get("name", "customer")).as_string())


app = application([Route("/", preview)])
