"""experimental-deploy: what the deploying process is given. examples/pants_deploy_test.go shows that it serves."""

from pants.engine.fs import Snapshot


def test_uploads(repository):
    repository.options(pexpress_cache="grpc://cache:1", pexpress_codeserver="cs:2")
    process = repository.deploy("svc:web").process
    assert process.argv[1:] == ("deploy", "--descriptor", "descriptor.json", "--from", "deps.pex,source.pex")
    assert process.env["PEXPRESS_CACHE"] == "grpc://cache:1"
    assert process.env["PEXPRESS_CODESERVER"] == "cs:2"
    files = repository.runner.request(Snapshot, [process.input_digest]).files
    assert "deps.pex/.deps/alpha-1.0-py3-none-any.whl" in files


def test_by_digest_alone(repository):
    repository.options(pexpress_upload="false")
    process = repository.deploy("svc:web").process
    assert process.argv[1:] == ("deploy", "--descriptor", "descriptor.json")
    assert repository.runner.request(Snapshot, [process.input_digest]).files == ("descriptor.json",)
