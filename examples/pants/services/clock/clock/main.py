"""A service of the standard library alone."""

import os
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from common.words import greeting


class Clock(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{greeting()}, it is {datetime.now(UTC):%H:%M}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Clock).serve_forever()
