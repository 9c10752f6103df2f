"""The engine by `Get`: Pants 2.17 and those after it that still have it."""

from __future__ import annotations

from collections.abc import Iterable

from pants.backend.python.util_rules.python_sources import PythonSourceFiles, PythonSourceFilesRequest
from pants.core.util_rules.external_tool import DownloadedExternalTool, ExternalToolRequest
from pants.core.util_rules.source_files import SourceFiles, SourceFilesRequest
from pants.core.util_rules.system_binaries import BinaryPathRequest, BinaryPaths
from pants.engine.addresses import Address, Addresses, UnparsedAddressInputs
from pants.engine.env_vars import EnvironmentVars, EnvironmentVarsRequest
from pants.engine.fs import (
    AddPrefix,
    CreateDigest,
    Digest,
    DigestEntries,
    DownloadFile,
    MergeDigests,
    PathGlobs,
    Snapshot,
)
from pants.engine.process import FallibleProcessResult, Process, ProcessResult
from pants.engine.rules import Get, MultiGet
from pants.engine.target import (
    Target,
    Targets,
    TransitiveTargets,
    TransitiveTargetsRequest,
)


async def run(process: Process) -> ProcessResult:
    """Run a process that must succeed."""
    return await Get(ProcessResult, Process, process)


async def try_run(process: Process) -> FallibleProcessResult:
    """Run a process that may fail."""
    return await Get(FallibleProcessResult, Process, process)


async def create(request: CreateDigest) -> Digest:
    return await Get(Digest, CreateDigest, request)


async def merge(request: MergeDigests) -> Digest:
    return await Get(Digest, MergeDigests, request)


async def prefix(request: AddPrefix) -> Digest:
    return await Get(Digest, AddPrefix, request)


async def snapshot(digest: Digest) -> Snapshot:
    return await Get(Snapshot, Digest, digest)


async def digest_entries(digest: Digest) -> DigestEntries:
    return await Get(DigestEntries, Digest, digest)


async def glob(request: PathGlobs) -> Snapshot:
    """Capture files of the repository."""
    return await Get(Snapshot, PathGlobs, request)


async def download_all(requests: Iterable[DownloadFile]) -> tuple[Digest, ...]:
    return await MultiGet(Get(Digest, DownloadFile, request) for request in requests)


async def external_tool(request: ExternalToolRequest) -> DownloadedExternalTool:
    return await Get(DownloadedExternalTool, ExternalToolRequest, request)


async def binary_paths(request: BinaryPathRequest) -> BinaryPaths:
    return await Get(BinaryPaths, BinaryPathRequest, request)


async def environment(request: EnvironmentVarsRequest) -> EnvironmentVars:
    """Read environment variables of the one who runs Pants."""
    return await Get(EnvironmentVars, EnvironmentVarsRequest, request)


async def single_target(request: UnparsedAddressInputs) -> Target:
    """Return the target that an address in a BUILD file names."""
    addresses = await Get(Addresses, UnparsedAddressInputs, request)
    targets = await Get(Targets, Addresses, addresses)
    return targets.expect_single()


async def closure(address: Address) -> TransitiveTargets:
    """Return a target and all that it depends on, by Pants' own inference."""
    return await Get(TransitiveTargets, TransitiveTargetsRequest([address]))


async def sources(request: SourceFilesRequest) -> SourceFiles:
    return await Get(SourceFiles, SourceFilesRequest, request)


async def python_sources(request: PythonSourceFilesRequest) -> PythonSourceFiles:
    return await Get(PythonSourceFiles, PythonSourceFilesRequest, request)
