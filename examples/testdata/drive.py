"""Keeps one DagsterGrpcClient on a code server: 200 pings a second, and one question for each line that comes in.

drive.py HOST:PORT; each line of standard input is answered with one line of JSON: "assets" with the assets and their
descriptions, "runs" with the runs that are executed, "id" with the server's id, "shutdown" with what becomes of
ShutdownServer. At the end of input the number of pings and of failures is printed.
"""

import json
import sys
import threading
import time

import dagster as dg
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import GetCurrentRunsResult, ShutdownServerResult
from dagster._serdes import deserialize_value


def main() -> None:
    host, port = sys.argv[1].rsplit(":", 1)
    client = DagsterGrpcClient(host=host, port=int(port), use_ssl=False)
    stop = threading.Event()
    count = {"pings": 0, "failed": 0, "errors": []}

    def ping() -> None:
        next_at = time.monotonic()
        while not stop.is_set():
            count["pings"] += 1
            try:
                if client.ping("x")["echo"] != "x":
                    raise RuntimeError("wrong echo")
            except Exception as e:  # noqa: BLE001 - every failure counts
                count["failed"] += 1
                count["errors"].append(repr(e)[:300])
            next_at += 0.02
            time.sleep(max(0, next_at - time.monotonic()))

    threads = [threading.Thread(target=ping) for _ in range(4)]
    for t in threads:
        t.start()
    origin = GrpcServerCodeLocationOrigin(host=host, port=int(port), location_name="quickstart")
    for line in sys.stdin:
        if line == "assets\n":
            with dg.DagsterInstance.ephemeral() as instance, origin.create_location(instance) as location:
                nodes = [n for r in location.get_repositories().values() for n in r.asset_graph.asset_nodes]
                answer = {n.key.to_user_string(): n.description for n in nodes}
        elif line == "runs\n":
            answer = deserialize_value(client.get_current_runs(), GetCurrentRunsResult).current_runs
        elif line == "id\n":
            answer = client.get_server_id()
        elif line == "shutdown\n":
            answer = deserialize_value(client.shutdown_server(), ShutdownServerResult).success
        else:
            raise SystemExit(f"what is {line!r}?")
        print(json.dumps(answer), flush=True)
    stop.set()
    for t in threads:
        t.join()
    print(json.dumps(count), flush=True)


main()
