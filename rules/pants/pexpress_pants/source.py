"""source.pex: of exactly the files that a target needs, or of a project."""

from __future__ import annotations

from dataclasses import dataclass

from pants.backend.python.util_rules.python_sources import PythonSourceFilesRequest
from pants.engine.addresses import Address
from pants.engine.fs import AddPrefix, CreateDigest, Digest, FileContent, MergeDigests
from pants.engine.rules import collect_rules, rule
from pants.util.logging import LogLevel

from pexpress_pants import engine
from pexpress_pants.deps import ARGUMENTS, Bootstrap, split
from pexpress_pants.errors import PexpressError
from pexpress_pants.project import StageRequest, check_complete, stage_project
from pexpress_pants.tool import PexpressTool


@dataclass(frozen=True)
class SourceRequest:
    address: Address
    project: str | None  # a directory from the build root
    location: str
    bootstrap: Bootstrap
    python: str
    platform: str
    tool: PexpressTool


@dataclass(frozen=True)
class SourcePex:
    """A directory `source.pex` and its description, `source.json`."""

    tree: Digest
    summary: Digest


def escaped(name: str) -> str:
    """Returns a name as the left side of pexpress' --file takes it."""
    return name.replace("\\", "\\\\").replace("=", "\\=")


@rule(desc="Make source.pex", level=LogLevel.DEBUG)
async def compose_source(request: SourceRequest) -> SourcePex:
    closure = await engine.closure(request.address)
    code = await engine.python_sources(PythonSourceFilesRequest(closure.closure, include_files=True))
    files = code.source_files.files
    if not files and request.project is None:
        raise PexpressError(f"{request.address} has no sources: give it dependencies, or a project")
    if request.project is None:
        odd = [name for name in files if "\n" in name]
        if odd:
            raise PexpressError(
                f"{odd[0]!r}, which {request.address} depends on, has a line break in its name: rename it"
            )
        inputs = await engine.prefix(AddPrefix(code.source_files.snapshot.digest, "root"))
        lines = [f"--file={escaped(name)}=root/{name}" for name in files]
        lines += [f"--source-root={root}" for root in code.source_roots if root != "."]
    else:
        staged = await stage_project(StageRequest(request.project, code.source_files.snapshot))
        inputs = await engine.prefix(AddPrefix(staged.digest, "root"))
        lines = ["--root=root", f"--project={request.project or '.'}", f"--location={request.location}", "--follow"]
    arguments = await engine.create(CreateDigest([FileContent(ARGUMENTS, "\n".join(lines).encode())]))
    result = await engine.run(
        request.tool.process(
            (
                "compose",
                "source",
                "--bootstrap",
                "bootstrap",
                "--python",
                request.python,
                "--platform",
                request.platform,
                "--out",
                "source.pex",
                "--summary",
                "source.json",
                f"@{ARGUMENTS}",
            ),
            description=f"Make source.pex of {request.address}",
            inputs=await engine.merge(MergeDigests([request.bootstrap.digest, inputs, arguments])),
            files=("source.json",),
            directories=("source.pex",),
        )
    )
    tree, summary = await split(result.output_digest, "source.pex", "source.json")
    if request.project is not None:
        made = await engine.snapshot(tree)
        names = [name[len("source.pex/") :] for name in made.files]
        check_complete(request.address, request.project, staged, files, names)
    return SourcePex(tree, summary)


def rules():
    return collect_rules()
