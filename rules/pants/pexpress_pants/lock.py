"""Lock → the wheels that a target needs, selected by `pexpress lock select`."""

from __future__ import annotations

import json
import os.path
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pants.core.util_rules.source_files import SourceFilesRequest
from pants.engine.addresses import Address
from pants.engine.fs import GlobMatchErrorBehavior, MergeDigests, PathGlobs
from pants.engine.process import FallibleProcessResult
from pants.engine.rules import collect_rules, rule
from pants.engine.target import Target
from pants.util.logging import LogLevel

from pexpress_pants import engine
from pexpress_pants.errors import PexpressError
from pexpress_pants.target_types import (
    ExtrasField,
    GroupsField,
    LockField,
    PexpressDeps,
    PlatformField,
    PythonField,
)
from pexpress_pants.tool import PexpressTool


@dataclass(frozen=True)
class Wheel:
    """A wheel of a lock. `where` is a URL, or a path from the build root."""

    name: str
    version: str
    filename: str
    where: str
    is_url: bool
    sha256: str
    size: int


@dataclass(frozen=True)
class SelectRequest:
    address: Address
    lock: LockField
    python: str
    platform: str
    extras: tuple[str, ...]
    groups: tuple[str, ...]
    pex_lock: str | None
    tool: PexpressTool

    @classmethod
    def of(cls, deps: Target, pex_lock: str | None, tool: PexpressTool) -> SelectRequest:
        if not isinstance(deps, PexpressDeps):
            raise PexpressError(f"{deps.address} is a {deps.alias}, a pexpress_location's deps must be a pexpress_deps")
        return cls(
            deps.address,
            deps[LockField],
            deps[PythonField].value,
            deps[PlatformField].value,
            deps[ExtrasField].value or (),
            deps[GroupsField].value or (),
            pex_lock,
            tool,
        )

    @property
    def target(self) -> str:
        return f"{self.python}:{self.platform}"


@dataclass(frozen=True)
class Selection:
    """What a lock says of one target; `failure` is why it says nothing."""

    wheels: tuple[Wheel, ...] = ()
    pex: Wheel | None = None
    failure: str | None = None


@rule(desc="Select the wheels of a lock", level=LogLevel.DEBUG)
async def select_wheels(request: SelectRequest) -> Selection:
    inputs = await engine.sources(SourceFilesRequest([request.lock]))
    path = inputs.files[0]
    digest = inputs.snapshot.digest
    args = ["lock", "select", "--lock", path, "--target", request.target]
    args += [f"--extra={extra}" for extra in request.extras] + [f"--group={group}" for group in request.groups]
    if request.pex_lock:
        pex_lock = await engine.glob(
            PathGlobs([request.pex_lock], GlobMatchErrorBehavior.error, description_of_origin="[pexpress].pex_lock")
        )
        digest = await engine.merge(MergeDigests([digest, pex_lock.digest]))
        args += ["--pex-lock", request.pex_lock]
    result = await engine.try_run(
        request.tool.process(tuple(args), description=f"Select {request.target} of {path}", inputs=digest)
    )
    return read_selection(result, os.path.dirname(path), request.target)


def read_selection(result: FallibleProcessResult, directory: str, target: str) -> Selection:
    if result.exit_code != 0:
        return Selection(failure=result.stderr.decode(errors="replace").strip())
    said = json.loads(result.stdout)
    wheels = tuple(read_wheel(wheel, directory) for wheel in said["targets"][target])
    return Selection(wheels, read_wheel(said["pex"], directory))


def read_wheel(said: Mapping[str, Any], directory: str) -> Wheel:
    path, url = said.get("path", ""), said.get("url", "").partition("#")[0]
    if os.path.isabs(path):
        path, url = "", f"file://{path}"
    return Wheel(
        said.get("name", ""),
        said.get("version", ""),
        said["filename"],
        os.path.normpath(os.path.join(directory, path)) if path else url,
        not path,
        said["sha256"],
        said.get("size", 0),
    )


def rules():
    return collect_rules()
