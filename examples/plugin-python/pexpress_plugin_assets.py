"""A pexpress builder in Python: it bundles style sheets and scripts, and names each bundle by its content.

inputs/web/css/site.css becomes web/css/site.0123abcd.css, and manifest.json says so, for pages to link to what never changes.
docs/plugins.md describes the protocol.
"""

import hashlib
import json
import os
import re
import sys
import threading
from concurrent import futures

import grpc

import protocol_pb2 as pb

KIND = "assets"  # also the builder's name
OUTPUT_VERSION = "assets-1"  # raise it whenever the same inputs would give other outputs
LARGEST = 3 << 20  # bytes of a file; larger ones would have to be written by ByteStream
CAS = "/build.bazel.remote.execution.v2.ContentAddressableStorage/"


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def digest_of(data):
    return pb.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


class Endpoint:
    """The CAS of one Action."""

    def __init__(self, target):
        self.channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", 8 << 20)])
        self.read_stream = self.channel.unary_stream("/google.bytestream.ByteStream/Read", pb.ReadRequest.SerializeToString, pb.ReadResponse.FromString)
        self.update = self.channel.unary_unary(CAS + "BatchUpdateBlobs", pb.UpdateRequest.SerializeToString, pb.UpdateResponse.FromString)

    def read(self, digest):
        try:
            data = b"".join(r.data for r in self.read_stream(pb.ReadRequest(resource_name=f"blobs/{digest.hash}/{digest.size_bytes}")))
        except grpc.RpcError as error:
            raise Refused(grpc.StatusCode.FAILED_PRECONDITION, f"read blob {digest.hash}: {error.details()}") from error
        return data

    def message(self, kind, digest):
        return kind.FromString(self.read(digest))

    def put(self, data):
        digest, update = digest_of(data), pb.UpdateRequest()
        if len(data) > LARGEST:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"an asset of {len(data)} bytes: this builder takes up to {LARGEST}")
        update.requests.add(digest=digest, data=data)
        for answer in self.update(update).responses:
            if answer.status.code:
                raise RuntimeError(f"store blob {digest.hash}: {answer.status.message}")
        return digest


def files_of(cas, digest, prefix=""):
    """Yields path and digest of all files below a Directory, from the top down: so they come into reach."""
    directory = cas.message(pb.Directory, digest)
    yield from ((prefix + node.name, node.digest) for node in directory.files)
    for node in directory.directories:
        yield from files_of(cas, node.digest, prefix + node.name + "/")


def compact(data):
    """Leaves out comments of whole lines, blank lines and the space around lines."""
    text = re.sub(rb"(?m)^\s*(/\*[^*]*\*/|//[^\n]*)\s*?$", b"", data)
    return b"".join(line.strip() + b"\n" for line in text.splitlines() if line.strip())


def store_tree(cas, files):
    """Stores a canonical tree of path → digest, and returns the digests of its Tree and its root."""
    children = []

    def store(files):
        directory, below = pb.Directory(), {}
        for path, digest in files.items():
            top, slash, rest = path.partition("/")
            if slash:
                below.setdefault(top, {})[rest] = digest
        for name in sorted((p for p in files if "/" not in p), key=str.encode):
            directory.files.add(name=name, digest=files[name], is_executable=True)
        for name in sorted(below, key=str.encode):
            child = store(below[name])
            children.append(child)
            directory.directories.add(name=name, digest=cas.put(child.SerializeToString(deterministic=True)))
        return directory

    root = store(files)
    tree = pb.Tree(root=root, children=list({c.SerializeToString(deterministic=True): c for c in children}.values()))
    return cas.put(tree.SerializeToString(deterministic=True)), cas.put(root.SerializeToString(deterministic=True))


def build(request, context):
    cas = Endpoint(request.cas_endpoint)
    try:
        action = cas.message(pb.Action, request.action_digest)
        command = cas.message(pb.Command, action.command_digest)
        if list(command.arguments) != ["pexpress", "builder", KIND]:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, f"this builder makes {KIND}, not {' '.join(command.arguments)}")
        versions = [p.value for p in action.platform.properties if p.name == "pexpress-output-version"]
        if versions != [OUTPUT_VERSION]:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"this builder writes {OUTPUT_VERSION}, not {versions}")
        files, manifest = {}, {}
        for path, digest in files_of(cas, action.input_root_digest):
            name = path.removeprefix("inputs/")
            data = cas.read(digest)
            stem, extension = os.path.splitext(name)
            data = compact(data) if extension in (".css", ".js") else data
            manifest[name] = f"{stem}.{hashlib.sha256(data).hexdigest()[:8]}{extension}"
            files[manifest[name]] = cas.put(data)
        files["manifest.json"] = cas.put(json.dumps(manifest, sort_keys=True, indent=1).encode())
        tree, root = store_tree(cas, files)
        output = {"path": command.output_paths[0], "tree_digest": tree, "root_directory_digest": root}
        return pb.BuildResponse(action_result={"output_directories": [output]})
    except Refused as refused:
        context.abort(refused.code, str(refused))
    finally:
        cas.channel.close()


def main():
    if os.environ.get("PEXPRESS_PLUGIN") != "be64db6a-builder":
        sys.exit("this is a builder plugin: pexpress starts it by itself, there is nothing to run by hand")
    if "1" not in os.environ.get("PLUGIN_PROTOCOL_VERSIONS", "1").split(","):
        sys.exit(f"this builder speaks version 1 of the plugin protocol, pexpress {os.environ['PLUGIN_PROTOCOL_VERSIONS']}: install releases of one time")
    method, about = grpc.unary_unary_rpc_method_handler, pb.DescribeResponse(name=KIND, output_version=OUTPUT_VERSION, kinds=[KIND])
    services = {
        "pexpress.plugin.v1.Builder": {
            "Describe": method(lambda request, context: about, pb.DescribeRequest.FromString, pb.DescribeResponse.SerializeToString),
            "Build": method(build, pb.BuildRequest.FromString, pb.BuildResponse.SerializeToString),
        },
        "grpc.health.v1.Health": {"Check": method(lambda request, context: b"\x08\x01")},  # SERVING
    }
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(s, m) for s, m in services.items()])
    socket = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "assets")
    server.add_insecure_port("unix:" + socket)
    server.start()
    threading.Thread(target=lambda: (os.read(3, 1), os._exit(0)), daemon=True).start()  # the lifeline
    print(f"1|1|unix|{socket}|grpc", flush=True)
    server.wait_for_termination()

