"""A location: both trees, and the descriptor that deploys them by digest."""

from __future__ import annotations

import json
import os.path
from dataclasses import dataclass
from typing import Any

from pants.engine.addresses import Address, UnparsedAddressInputs
from pants.engine.fs import CreateDigest, Digest, FileContent, MergeDigests
from pants.engine.rules import collect_rules, rule
from pants.engine.target import Target
from pants.util.logging import LogLevel

from pexpress_pants import engine
from pexpress_pants.deps import DepsPex, DepsRequest, compose_deps
from pexpress_pants.errors import PexpressError
from pexpress_pants.lock import SelectRequest
from pexpress_pants.source import SourcePex, SourceRequest, compose_source
from pexpress_pants.target_types import PexpressSource, ProjectField
from pexpress_pants.tool import PexpressTool

DESCRIPTOR = "descriptor.json"


@dataclass(frozen=True)
class LocationRequest:
    address: Address
    deps: str
    source: str
    name: str
    run: str | None
    pex_lock: str | None
    tool: PexpressTool


@dataclass(frozen=True)
class Location:
    name: str
    deps: DepsPex
    source: SourcePex
    descriptor: Digest


async def target_of(address: Address, field: str, value: str) -> Target:
    """Return the target that a location's field names."""
    return await engine.single_target(
        UnparsedAddressInputs([value], owning_address=address, description_of_origin=f"the field {field} of {address}")
    )


def project_of(source: Target) -> str | None:
    """Return the directory of a source's project, from the build root."""
    if not isinstance(source, PexpressSource):
        raise PexpressError(
            f"{source.address} is a {source.alias}, a pexpress_location's source must be a pexpress_source"
        )
    project = source[ProjectField].value
    if project is None:
        return None
    directory = os.path.normpath(os.path.join(source.address.spec_path, project))
    if directory == ".." or directory.startswith(("../", "/")):
        raise PexpressError(f"the field project of {source.address} leads out of the repository: {project}")
    return "" if directory == "." else directory


@rule(desc="Make a location", level=LogLevel.DEBUG)
async def make_location(request: LocationRequest) -> Location:
    deps_target = await target_of(request.address, "deps", request.deps)
    source_target = await target_of(request.address, "source", request.source)
    project = project_of(source_target)
    if (project is None) == (request.run is None):
        raise PexpressError(
            f"{request.address} needs the field run, since {source_target.address} is no project that says what to run"
            if project is None
            else f"{request.address} has the field run, and {source_target.address} is a project, whose own "
            "configuration says what to run: leave one out"
        )
    deps = await compose_deps(DepsRequest(SelectRequest.of(deps_target, request.pex_lock, request.tool)))
    source = await compose_source(
        SourceRequest(
            source_target.address, project, request.name, deps.bootstrap, deps.python, deps.platform, request.tool
        )
    )
    digests = [deps.summary, source.summary]
    args = ["compose", "describe", "--deps-summary", "deps.json", "--source-summary", "source.json"]
    args += ["--name", request.name, "--out", DESCRIPTOR]
    if request.run is not None:
        content = configuration(request.name, json.loads(request.run))
        digests.append(await engine.create(CreateDigest([FileContent("pexpress.toml", content.encode())])))
        args += ["--as-project", ".", "--file", "pexpress.toml=pexpress.toml", "--location", request.name]
    result = await engine.run(
        request.tool.process(
            tuple(args),
            description=f"Describe {request.address}",
            inputs=await engine.merge(MergeDigests(digests)),
            files=(DESCRIPTOR,),
        )
    )
    return Location(request.name, deps, source, result.output_digest)


def configuration(name: str, run: dict[str, Any]) -> str:
    """Return the field run as the pexpress.toml that it mirrors."""
    return f"location.{toml(name)} = {toml(run)}\n"


def toml(value: Any) -> str:
    """Write a value as TOML on one line. JSON's strings and numbers are TOML's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if value is None:
        raise PexpressError("the field run holds None: leave the key out")
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def rules():
    return collect_rules()
