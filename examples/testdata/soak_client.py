"""Requests to the soak test's gRPC server, by grpcio: soak_client.py HOST:PORT RATE, until standard input ends.

Each request is a line of JSON on standard output, when it has ended.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc


def main() -> None:
    channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_retries", 0)])
    pause, print_lock, stop = 1 / int(sys.argv[2]), threading.Lock(), threading.Event()

    def unary(result: dict) -> None:
        call = channel.unary_unary("/soak.Soak/Unary")
        result["said"] = [call(b"x", timeout=120).decode()]
        result["seen"] = time.time()

    def stream(result: dict) -> None:
        def messages():
            for _ in range(10):
                yield b"x"
                time.sleep(0.1)

        for said in channel.stream_stream("/soak.Soak/Stream")(messages(), timeout=120):
            result.setdefault("seen", time.time())
            result["said"].append(said.decode())

    def request(kind: str, send) -> None:
        result = {"kind": kind, "from": time.time(), "said": []}
        try:
            send(result)
        except Exception as e:  # noqa: BLE001 - every failure counts
            result["error"] = repr(e)
        with print_lock:
            print(json.dumps(result), flush=True)

    threading.Thread(target=lambda: (sys.stdin.read(), stop.set())).start()
    with futures.ThreadPoolExecutor(max_workers=200) as pool:
        count, at = 0, time.monotonic()
        while not stop.is_set():
            if count % 20 == 0:
                pool.submit(request, "grpcio stream", stream)
            else:
                pool.submit(request, "grpcio", unary)
            count, at = count + 1, at + pause
            time.sleep(max(0, at - time.monotonic()))
    channel.close()


main()
