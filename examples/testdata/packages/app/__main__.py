"""Says over HTTP all that it sees of its process, and what the packages that are there do. Reports are made in the main
thread, as signals and asyncio want it; the server has another."""

import atexit
import http.server
import json
import os
import queue
import signal
import sys
import threading

from app import behaviour, packages, randomness, state
from app.version import VERSION

REPORTS = {"/state": state.report, "/packages": packages.report, "/behaviour": behaviour.report, "/random": randomness.report}
WORK = queue.Queue()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = queue.Queue()
        if self.path == "/ready":
            answer.put(VERSION)
        else:
            WORK.put((self.path, answer))
        text = json.dumps(answer.get(), sort_keys=True, default=str)  # without what is another version's: its directory and port
        body = text.replace(os.getcwd(), "SOURCE").replace('"%s"' % os.environ["PORT"], '"PORT"').encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def at_exit():
    print("version", VERSION, "ends: atexit in", __name__, "main thread:", threading.current_thread() is threading.main_thread())


def main():
    atexit.register(at_exit)
    signal.signal(signal.SIGTERM, lambda *args: sys.exit(0))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
    while True:
        path, answer = WORK.get()
        try:
            answer.put(REPORTS[path]())
        except Exception as err:
            answer.put({"error": "%s: %s" % (type(err).__name__, err)})


if __name__ == "__main__":
    main()
