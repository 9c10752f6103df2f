"""deps.pex, and pex's runtime that every PEX carries."""

from __future__ import annotations

from dataclasses import dataclass

from pants.engine.fs import CreateDigest, Digest, FileContent, MergeDigests
from pants.engine.rules import collect_rules, rule
from pants.util.logging import LogLevel

from pexpress_pants import engine
from pexpress_pants.errors import PexpressError
from pexpress_pants.lock import SelectRequest, Wheel, select_wheels
from pexpress_pants.tool import PexpressTool
from pexpress_pants.wheels import WheelsRequest, fetch_wheels

ARGUMENTS = "arguments.txt"


@dataclass(frozen=True)
class BootstrapRequest:
    pex: Wheel
    tool: PexpressTool


@dataclass(frozen=True)
class Bootstrap:
    """A directory `bootstrap`."""

    digest: Digest


@dataclass(frozen=True)
class DepsRequest:
    select: SelectRequest


@dataclass(frozen=True)
class DepsPex:
    """A directory `deps.pex` and its description, `deps.json`; and what a source.pex beside it is made with."""

    tree: Digest
    summary: Digest
    bootstrap: Bootstrap
    python: str
    platform: str


async def split(digest: Digest, directory: str, file: str) -> tuple[Digest, Digest]:
    """Part a tree from its description: who needs the one need not fetch the other."""
    tree, summary = [], []
    for entry in await engine.digest_entries(digest):
        if entry.path == file:
            summary.append(entry)
        elif entry.path.startswith(f"{directory}/"):
            tree.append(entry)
    return await engine.create(CreateDigest(tree)), await engine.create(CreateDigest(summary))


@rule(desc="Take the runtime out of pex", level=LogLevel.DEBUG)
async def compose_bootstrap(request: BootstrapRequest) -> Bootstrap:
    if not request.pex.where:
        raise PexpressError(
            f"no lock says where {request.pex.filename} is, whose runtime goes into every PEX: put "
            f"{request.pex.name}=={request.pex.version} into a lock of its own and name it in [pexpress].pex_lock"
        )
    wheel = await fetch_wheels(WheelsRequest((request.pex,), "wheels"))
    result = await engine.run(
        request.tool.process(
            ("compose", "bootstrap", "--wheel", f"wheels/{request.pex.filename}", "--out", "bootstrap"),
            description=f"Take the runtime out of {request.pex.filename}",
            inputs=wheel.digest,
            directories=("bootstrap",),
        )
    )
    return Bootstrap(result.output_digest)


@rule(desc="Make deps.pex", level=LogLevel.DEBUG)
async def compose_deps(request: DepsRequest) -> DepsPex:
    select = request.select
    selection = await select_wheels(select)
    if selection.failure is not None or selection.pex is None:
        raise PexpressError(f"{select.address}: {selection.failure}")
    bootstrap = await compose_bootstrap(BootstrapRequest(selection.pex, select.tool))
    wheels = await fetch_wheels(WheelsRequest(selection.wheels, "wheels"))
    lines = [f"--wheel=wheels/{wheel.filename}" for wheel in selection.wheels]
    arguments = await engine.create(CreateDigest([FileContent(ARGUMENTS, "\n".join(lines).encode())]))
    result = await engine.run(
        select.tool.process(
            (
                "compose",
                "deps",
                "--bootstrap",
                "bootstrap",
                "--python",
                select.python,
                "--platform",
                select.platform,
                "--out",
                "deps.pex",
                "--summary",
                "deps.json",
                f"@{ARGUMENTS}",
            ),
            description=f"Make deps.pex of {select.address}",
            inputs=await engine.merge(MergeDigests([bootstrap.digest, wheels.digest, arguments])),
            files=("deps.json",),
            directories=("deps.pex",),
        )
    )
    tree, summary = await split(result.output_digest, "deps.pex", "deps.json")
    return DepsPex(tree, summary, bootstrap, select.python, select.platform)


def rules():
    return collect_rules()
