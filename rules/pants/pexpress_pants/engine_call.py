"""The engine by rules' names: current Pants, which has no `Get`."""

from __future__ import annotations

from collections.abc import Iterable

from pants.backend.python.util_rules.python_sources import (
    PythonSourceFiles,
    PythonSourceFilesRequest,
    prepare_python_sources,
)
from pants.core.util_rules.env_vars import environment_vars_subset
from pants.core.util_rules.external_tool import (
    DownloadedExternalTool,
    ExternalToolRequest,
    download_external_tool,
)
from pants.core.util_rules.source_files import (
    SourceFiles,
    SourceFilesRequest,
    determine_source_files,
)
from pants.core.util_rules.system_binaries import BinaryPathRequest, BinaryPaths, find_binary
from pants.engine.addresses import Address, UnparsedAddressInputs
from pants.engine.download_file import download_file
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
from pants.engine.internals.graph import resolve_targets, transitive_targets
from pants.engine.intrinsics import (
    add_prefix,
    create_digest,
    digest_to_snapshot,
    execute_process,
    get_digest_entries,
    merge_digests,
)
from pants.engine.process import (
    FallibleProcessResult,
    Process,
    ProcessResult,
    execute_process_or_raise,
)
from pants.engine.rules import concurrently, implicitly
from pants.engine.target import Target, TransitiveTargets, TransitiveTargetsRequest


async def run(process: Process) -> ProcessResult:
    """Run a process that must succeed."""
    return await execute_process_or_raise(**implicitly({process: Process}))


async def try_run(process: Process) -> FallibleProcessResult:
    """Run a process that may fail."""
    return await execute_process(process, **implicitly())


async def create(request: CreateDigest) -> Digest:
    return await create_digest(request)


async def merge(request: MergeDigests) -> Digest:
    return await merge_digests(request)


async def prefix(request: AddPrefix) -> Digest:
    return await add_prefix(request)


async def snapshot(digest: Digest) -> Snapshot:
    return await digest_to_snapshot(digest)


async def digest_entries(digest: Digest) -> DigestEntries:
    return await get_digest_entries(digest)


async def glob(request: PathGlobs) -> Snapshot:
    """Capture files of the repository."""
    return await digest_to_snapshot(**implicitly({request: PathGlobs}))


async def download_all(requests: Iterable[DownloadFile]) -> tuple[Digest, ...]:
    return await concurrently(download_file(request, **implicitly()) for request in requests)


async def external_tool(request: ExternalToolRequest) -> DownloadedExternalTool:
    return await download_external_tool(request)


async def binary_paths(request: BinaryPathRequest) -> BinaryPaths:
    return await find_binary(request, **implicitly())


async def environment(request: EnvironmentVarsRequest) -> EnvironmentVars:
    """Read environment variables of the one who runs Pants."""
    return await environment_vars_subset(request, **implicitly())


async def single_target(request: UnparsedAddressInputs) -> Target:
    """Return the target that an address in a BUILD file names."""
    targets = await resolve_targets(**implicitly({request: UnparsedAddressInputs}))
    return targets.expect_single()


async def closure(address: Address) -> TransitiveTargets:
    """Return a target and all that it depends on, by Pants' own inference."""
    return await transitive_targets(TransitiveTargetsRequest([address]), **implicitly())


async def sources(request: SourceFilesRequest) -> SourceFiles:
    return await determine_source_files(request)


async def python_sources(request: PythonSourceFilesRequest) -> PythonSourceFiles:
    return await prepare_python_sources(request, **implicitly())
