"""What a Dagster code server serves, asked through Dagster's own gRPC client: ask.py HOST:PORT."""

import sys

import dagster as dg
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._grpc.client import DagsterGrpcClient


def main() -> None:
    host, port = sys.argv[1].rsplit(":", 1)
    client = DagsterGrpcClient(host=host, port=int(port))
    print("ping:", client.ping("hello")["echo"])
    origin = GrpcServerCodeLocationOrigin(host=host, port=int(port), location_name="demo")
    with dg.DagsterInstance.ephemeral() as instance, origin.create_location(instance) as location:
        for repository in location.get_repositories().values():
            for node in sorted(repository.asset_graph.asset_nodes, key=lambda n: n.key):
                print(f"asset {node.key.to_user_string()}: {node.description or ''}")


if __name__ == "__main__":
    main()
